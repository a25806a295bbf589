//! `usher models`: what the slots' learners know.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::endpoint_url;

/// Look at what the slots' learners know, save it, put it back, or forget it
#[derive(Debug, Args)]
pub struct ModelsOptions {
    /// What to do
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// The commands about models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    List(ListModelsOptions),
    Show(ShowModelOptions),
    Export(ExportModelOptions),
    Import(ImportModelOptions),
    Reset(ResetModelOptions),
}

/// Where the models are.
#[derive(Clone, Debug, Args)]
pub struct ModelsPlace {
    /// The models table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "models")]
    pub table: String,
    /// The journey that is deployed; without it, journey/journey.yaml beside the template.yaml of this folder or one above
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: Option<PathBuf>,
    /// Where DynamoDB is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
}

/// List the slots that the journey has learners for, and what each knows
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher models list
  usher models list --table staging-models --endpoint-url http://127.0.0.1:4568

Exit codes: 0 it is listed, 1 a model or the table can't be read, 2 the command was not understood")]
pub struct ListModelsOptions {
    /// Where the models are
    #[command(flatten)]
    pub place: ModelsPlace,
}

/// Show what a slot's learner knows of each content
///
/// For each content that was offered: how many outcomes it had (with a half-life, how many they still count as), and what one was worth in the
/// mean, with the standard error of that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher models show in_app

Exit codes: 0 it is shown, 1 there is no such slot or its model can't be read, 2 the command was not understood")]
pub struct ShowModelOptions {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = NonEmptyStringValueParser::new())]
    pub slot: String,
    /// Where the models are
    #[command(flatten)]
    pub place: ModelsPlace,
}

/// Write a slot's model to a file, as JSON
///
/// The file has everything that was learned, as sums, so that nothing gets lost on the way back. docs/models.md describes it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher models export in_app in_app.json
  usher models export in_app > in_app.json

Exit codes: 0 it is written, 1 there is no model or it can't be read, 2 the command was not understood")]
pub struct ExportModelOptions {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = NonEmptyStringValueParser::new())]
    pub slot: String,
    /// The file; without it, or with `-`, standard output
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where the models are
    #[command(flatten)]
    pub place: ModelsPlace,
}

/// Put an exported model in place of a slot's
///
/// The file must have been written for the same context: the journey's slot lays it out as the file says. What was learned
/// since the export is replaced. How far the stream was learned from stays as it is, so no outcome counts again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher models import in_app in_app.json

Exit codes: 0 it is put, 1 the file is no model of this slot or the table can't be written, 2 the command was not understood")]
pub struct ImportModelOptions {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = NonEmptyStringValueParser::new())]
    pub slot: String,
    /// The file that `usher models export` wrote; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the models are
    #[command(flatten)]
    pub place: ModelsPlace,
}

/// Forget what a slot's learner knows
///
/// Its next decisions are made as if nothing had come of any offer. How far the stream was learned from stays as it is, so old
/// outcomes don't count again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher models export in_app in_app.json && usher models reset in_app --yes

Exit codes: 0 it is forgotten, or you said no, 1 it can't be, 2 the command was not understood")]
pub struct ResetModelOptions {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = NonEmptyStringValueParser::new())]
    pub slot: String,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
    /// Where the models are
    #[command(flatten)]
    pub place: ModelsPlace,
}
