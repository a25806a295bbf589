//! The rules that keep the layers apart, checked over the manifests and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::workspace::root;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the toolchain is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The resolved packages that each member needs to run, itself left out.
fn runtime_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let rustc = run(Command::new("rustc").arg("-vV"));
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("rustc tells its host");
    // Only this platform's packages: the others' are not on this machine, and must not be fetched by a test.
    let options = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--offline",
        "--filter-platform",
        host,
    ];
    let metadata = run(Command::new(env!("CARGO")).args(options).current_dir(root()));
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo writes JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let runtime = list(&node["deps"])
            .into_iter()
            .filter(|dependency| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
        edges.insert(
            text(&node["id"]),
            runtime.map(|dependency| text(&dependency["pkg"])).collect(),
        );
    }
    let members = list(&metadata["workspace_members"]);
    members
        .iter()
        .map(|member| {
            let member = text(member);
            let mut reached = BTreeSet::new();
            let mut open = edges[&member].clone();
            while let Some(id) = open.pop() {
                if reached.insert(id.clone()) {
                    open.extend(edges[&id].iter().cloned());
                }
            }
            (
                names[&member].clone(),
                reached.iter().map(|id| names[id].clone()).collect(),
            )
        })
        .collect()
}

fn is_any_of(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(front) => name.starts_with(front),
        None => name == *pattern,
    })
}

/// DESIGN: arrows point down the list of crates, never up, and the core imports no I/O.
#[test]
fn crates_import_only_what_their_layer_may() {
    const IO: &[&str] = &[
        "tokio", "tracing*", "aws*", "lambda*", "hyper*", "reqwest", "axum", "futures*", "mio",
    ];
    const SDK: &[&str] = &[
        "aws*",
        "lambda*",
        "hyper*",
        "reqwest",
        "axum",
        "ferrokinesis*",
        "dynoxide*",
    ];
    let dependencies = runtime_dependencies();
    for (member, banned) in [
        ("usher-domain", [IO, &["usher-*", "fastrand"]].concat()),
        (
            "usher-wire",
            [IO, &["usher-pipeline", "usher-aws", "usher-local"]].concat(),
        ),
        ("usher-pipeline", [SDK, &["usher-aws", "usher-local"]].concat()),
        ("usher-aws", vec!["usher-local", "ferrokinesis*", "dynoxide*"]),
        ("usher-local", vec!["usher-*", "aws-sdk-*"]),
        (
            "content-trends",
            vec!["usher-local", "ferrokinesis*", "dynoxide*", "clap*"],
        ),
        (
            "outcome-learner",
            vec!["usher-local", "ferrokinesis*", "dynoxide*", "clap*"],
        ),
        (
            "profile-writer",
            vec!["usher-local", "ferrokinesis*", "dynoxide*", "clap*"],
        ),
        (
            "timer-sweeper",
            vec!["usher-local", "ferrokinesis*", "dynoxide*", "clap*"],
        ),
        (
            "trigger-delivery",
            vec!["usher-local", "ferrokinesis*", "dynoxide*", "clap*"],
        ),
    ] {
        let reached = &dependencies[member];
        let wrong: Vec<_> = reached.iter().filter(|name| is_any_of(name, &banned)).collect();
        assert!(wrong.is_empty(), "{member} must not need {wrong:?}");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// P7: nothing pure looks at a clock, the environment, the file system or chance.
#[test]
fn p7_the_core_has_no_clock_environment_or_files() {
    const BANNED: &[&str] = &[
        "std::env",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "std::fs",
        "std::net",
        "std::thread",
    ];
    for folder in ["shared/domain/src", "shared/wire/src"] {
        for path in sources(&root().join(folder)) {
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for banned in BANNED {
                assert!(!code.contains(banned), "{} uses {banned}", path.display());
            }
        }
    }
}

/// A function's package is wiring: one file of few lines, no rules of its own.
#[test]
fn functions_are_only_wiring() {
    const LINES_MAX: usize = 70;
    for entry in std::fs::read_dir(root().join("functions"))
        .expect("functions")
        .flatten()
    {
        let files = sources(&entry.path().join("src"));
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
        assert_eq!(names, ["main.rs"], "{}", entry.path().display());
        let text = std::fs::read_to_string(&files[0]).expect("a source file");
        assert!(
            text.lines().count() <= LINES_MAX,
            "{} has {} lines",
            files[0].display(),
            text.lines().count()
        );
        for banned in ["serde_json", "aws_sdk", "impl ", "loop {", "while "] {
            assert!(
                !text.contains(banned),
                "{} does more than wiring: {banned}",
                files[0].display()
            );
        }
    }
}

/// Every member takes its lints, versions and licence from the workspace.
#[test]
fn every_member_follows_the_workspace() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace's manifest");
    let members = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","));
    let mut count = 0;
    for member in members {
        count += 1;
        let text = std::fs::read_to_string(root().join(member).join("Cargo.toml")).expect(member);
        for needed in [
            "[lints]\nworkspace = true",
            "version.workspace = true",
            "license.workspace = true",
        ] {
            assert!(text.contains(needed), "{member}/Cargo.toml lacks `{needed}`");
        }
        for line in text.lines() {
            let pinned = line.contains("version = \"") && !line.contains("[package");
            assert!(
                !pinned,
                "{member}/Cargo.toml names a version: use [workspace.dependencies]: {line}"
            );
        }
    }
    assert!(count >= 9, "found only {count} members");
}
