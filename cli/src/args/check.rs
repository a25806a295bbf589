//! `usher check` and `usher schema`.

use std::path::PathBuf;

use clap::Args;

/// Check a journey file: every error at once, each with its line and a suggestion
///
/// What can't be read is told first. Then what can't work: triggers that never fire, steps that nobody can complete,
/// conditions that exclude each other; what says nothing or is used nowhere; which conditions are slow; and how large a
/// profile gets, which is what a write costs. With a sample of events, the types that it or the journey lacks.
///
/// Nothing is run and nothing is sent. Do it before every deployment: a function with a journey that can't be read does not
/// start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher check journey/journey.yaml
  usher check journey/journey.yaml --events last-week.jsonl.gz --strict
  usher check journey/journey.yaml --json | jq '.findings[] | select(.severity == \"error\")'

Exit codes: 0 the journey has no errors (with --strict: no warnings either), 1 it has or can't be read, 2 the command was not understood")]
pub struct CheckOptions {
    /// The journey file
    #[arg(value_name = "JOURNEY.yaml")]
    pub journey: PathBuf,
    /// A sample of events: native JSON, one a line, plain or gzip; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Warnings count as errors
    #[arg(long)]
    pub strict: bool,
    /// Write one JSON object, for tools
    #[arg(long)]
    pub json: bool,
}

/// Print the JSON Schema of journey files, for completion and hints in editors
///
/// An editor with a YAML language server reads it where the file's first line is
/// `# yaml-language-server: $schema=journey.schema.json`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  usher schema > journey/journey.schema.json

Exit codes: 0 it is printed, 2 the command was not understood")]
pub struct SchemaOptions {}
