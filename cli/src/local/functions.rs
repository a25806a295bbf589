//! The function programs: built with cargo, or taken from a folder.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use usher_local::{FunctionSource, Template};

use crate::progress::Progress;
use crate::project::folder_of;

/// Lines of cargo's messages that an error repeats.
const CARGO_LINES_MAX: usize = 100;

/// Where the programs come from.
#[derive(Clone, Debug)]
pub enum Programs<'o> {
    /// From this folder.
    Folder(&'o Path),
    /// Built with cargo, or where there are no sources, from beside this program.
    Build {
        /// With cargo's release profile.
        release: bool,
    },
}

/// The program of each function of the template, by logical id.
///
/// # Errors
/// When one can't be built or isn't there.
pub async fn sources(
    template: &Template,
    template_file: &Path,
    programs: Programs<'_>,
) -> Result<BTreeMap<String, FunctionSource>> {
    let mut names: Vec<&str> = template
        .functions
        .iter()
        .map(|function| function.binary.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let root = folder_of(template_file);
    let paths = match programs {
        Programs::Folder(folder) => in_folder(folder, &names)?,
        Programs::Build { release } if root.join("Cargo.toml").is_file() => build(root, &names, release).await?,
        Programs::Build { .. } => {
            let own = std::env::current_exe().context("cannot tell where this program is")?;
            in_folder(folder_of(&own), &names)?
        }
    };
    let source = |binary: &str| FunctionSource::executable(paths[binary].clone());
    let functions = template.functions.iter();
    Ok(functions
        .map(|function| (function.logical_id.clone(), source(&function.binary)))
        .collect())
}

fn in_folder(folder: &Path, names: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let folder = std::path::absolute(folder).with_context(|| format!("cannot tell where {} is", folder.display()))?;
    let mut paths = BTreeMap::new();
    let mut missing = Vec::new();
    for name in names {
        let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if !path.is_file() {
            missing.push(*name);
        }
        paths.insert((*name).to_owned(), path);
    }
    if !missing.is_empty() {
        bail!(
            "the function programs {} are not in {}; build them there, or run this in the project's folder without \
             --bin-dir",
            missing.join(", "),
            folder.display()
        );
    }
    Ok(paths)
}

/// One line of `cargo build --message-format=json`, as far as it says what was built.
#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
}

async fn build(root: &Path, names: &[&str], release: bool) -> Result<BTreeMap<String, PathBuf>> {
    let spinner = Progress::spinner("building the functions");
    let mut command = Command::new("cargo");
    // With --workspace the features are those of the whole workspace, so nothing is compiled a second time for another set.
    command.args(["build", "--workspace", "--message-format=json-render-diagnostics"]);
    for name in names {
        command.args(["--bin", name]);
    }
    if release {
        command.arg("--release");
    }
    command
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context(
        "cannot start cargo to build the functions; install Rust (https://rustup.rs), or give the folder of built \
         programs with --bin-dir",
    )?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut paths = BTreeMap::new();
    let mut said = VecDeque::new();
    let artifacts = each_line(stdout, |line| {
        if let Ok(CargoMessage {
            reason,
            executable: Some(path),
            target: Some(target),
        }) = serde_json::from_str(&line)
            && reason == "compiler-artifact"
        {
            paths.insert(target.name, path);
        }
    });
    let messages = each_line(stderr, |line| {
        spinner.show(&format!("building the functions: {}", line.trim()));
        if said.len() == CARGO_LINES_MAX {
            said.pop_front();
        }
        said.push_back(line);
    });
    tokio::join!(artifacts, messages);
    let status = child.wait().await.context("cargo broke off")?;
    spinner.clear();
    let said: Vec<String> = said.into();
    if !status.success() {
        bail!("cargo could not build the functions ({status}):\n{}", said.join("\n"));
    }
    if let Some(missing) = names.iter().find(|name| !paths.contains_key(**name)) {
        bail!("cargo built no program {missing}; the template's function names it in BuildProperties.Binary");
    }
    Ok(paths)
}

async fn each_line(source: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(String)) {
    let Some(source) = source else { return };
    let mut lines = BufReader::new(source).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        take(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_are_missing_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), "").expect("written");
        assert!(in_folder(folder.path(), &["a"]).is_ok());
        let error = in_folder(folder.path(), &["a", "b", "c"])
            .expect_err("two are missing")
            .to_string();
        assert!(error.contains("programs b, c are not in"), "{error}");
    }
}
