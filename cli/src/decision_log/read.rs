//! Reading a decision log, and saying where it is wrong.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, anyhow};
use usher_domain::time::Timestamp;

use super::LoggedDecision;
use crate::events_file::EventsFile;

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";
/// How far a logged propensity may be off the probability of the candidate that was chosen: numbers may have been rounded.
const PROPENSITY_TOLERANCE: f64 = 1e-6;

/// A file with one decision a line, plain or gzip.
pub struct LogFile {
    name: String,
    lines: EventsFile,
}

impl LogFile {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// When it can't be opened or read.
    pub fn open(path: &Path) -> Result<LogFile> {
        let name = match path.as_os_str() == STANDARD_INPUT {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let lines = match path.as_os_str() == STANDARD_INPUT {
            true => EventsFile::open(path)?,
            false => {
                let file = File::open(path).with_context(|| {
                    format!("cannot read the log {name}; give a file that `usher export decisions` wrote")
                })?;
                let size = file.metadata().ok().filter(std::fs::Metadata::is_file);
                EventsFile::of(&name, file, size.map(|metadata| metadata.len()))?
            }
        };
        Ok(LogFile { name, lines })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes were read, and how many there are, for a progress bar.
    pub fn bytes(&self) -> (Option<u64>, Arc<AtomicU64>) {
        (self.lines.size(), self.lines.bytes_read())
    }

    /// The next decision; none at the end.
    ///
    /// # Errors
    /// Which line is wrong, at which member, and why; or the file can't be read.
    pub fn next_decision(&mut self) -> Result<Option<LoggedDecision>> {
        let Some(line) = self.lines.next_line()? else {
            return Ok(None);
        };
        let number = line.number;
        let decision = parse(line.bytes).map_err(|why| anyhow!("{}, line {number}: {why}", self.name))?;
        Ok(Some(decision))
    }
}

/// Reads one line.
fn parse(bytes: &[u8]) -> Result<LoggedDecision, String> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let decision: LoggedDecision = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let path = error.path().to_string();
        // The line is told by the caller, which knows it.
        let why = error.inner().to_string().replace(" at line 1 column ", " at column ");
        match path.as_str() {
            "." => why,
            path => format!("`{path}`: {why}"),
        }
    })?;
    parser
        .end()
        .map_err(|_| "there is more on the line than one JSON object".to_owned())?;
    checked(decision)
}

fn checked(decision: LoggedDecision) -> Result<LoggedDecision, String> {
    let is_probability = |number: f64| (0.0..=1.0).contains(&number);
    if decision.decided_at.parse::<Timestamp>().is_err() {
        let found = &decision.decided_at;
        return Err(format!(
            "`decided_at` is `{found}`, which is no time such as 2026-01-05T10:00:00Z"
        ));
    }
    if !is_probability(decision.propensity) || decision.propensity == 0.0 {
        let found = decision.propensity;
        return Err(format!(
            "`propensity` is {found}, but what was offered had a probability above 0 and at most 1"
        ));
    }
    for (index, candidate) in decision.candidates.iter().enumerate() {
        let at = |member: &str| format!("`candidates[{index}].{member}`");
        if let Some(found) = candidate
            .probability
            .filter(|probability| !is_probability(*probability))
        {
            return Err(format!(
                "{} is {found}, but probabilities are from 0 to 1",
                at("probability")
            ));
        }
        if decision.candidates[..index]
            .iter()
            .any(|before| before.content == candidate.content)
        {
            return Err(format!(
                "{} is `{}`, which is there already",
                at("content"),
                candidate.content
            ));
        }
    }
    if decision.candidates.is_empty() {
        return Ok(decision);
    }
    let Some(chosen) = decision
        .candidates
        .iter()
        .find(|candidate| candidate.content == decision.offer)
    else {
        return Err(format!(
            "`offer` is `{}`, which is none of the candidates",
            decision.offer
        ));
    };
    match chosen.probability {
        Some(probability) if (probability - decision.propensity).abs() > PROPENSITY_TOLERANCE => Err(format!(
            "`propensity` is {}, but the candidate `{}` that was offered has the probability {probability}",
            decision.propensity, decision.offer
        )),
        _ => Ok(decision),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::tests::decision;
    use super::*;

    #[test]
    fn what_was_written_comes_back() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for id in 0..3 {
            writeln!(file, "{}\n", serde_json::to_string(&decision(id)).expect("JSON")).expect("to write");
        }
        let mut log = LogFile::open(file.path()).expect("it is there");
        for id in 0..3 {
            assert_eq!(log.next_decision().expect("right"), Some(decision(id)));
        }
        assert_eq!(log.next_decision().expect("the end"), None);
        assert!(LogFile::open(Path::new("/no/such/log.jsonl")).is_err());
    }

    #[test]
    fn p10_what_is_wrong_is_told_with_its_line_and_member() {
        let right = serde_json::to_string(&decision(1)).expect("JSON");
        let least = r#"{"trigger_id":"1","user_id":"u","journey":"j","rule":"r","slot":"s","decided_at":"2026-01-05T10:00:00Z","offer":"a"}"#;
        assert!(parse(least.as_bytes()).is_ok_and(|decision| decision.propensity == 1.0 && !decision.settled));
        for (from, to, told) in [
            ("\"rule\":\"high_intent\",", "", "missing field `rule` at column "),
            (
                "\"propensity\":0.25",
                "\"propensity\":\"x\"",
                "`propensity`: invalid type: string \"x\", expected f64 at column ",
            ),
            (
                "\"probability\":0.75",
                "\"probability\":[]",
                "`candidates[1].probability`: invalid type: sequence",
            ),
            (
                "\"propensity\":0.25",
                "\"propensity\":0",
                "`propensity` is 0, but what was offered had",
            ),
            (
                "\"propensity\":0.25",
                "\"propensity\":0.5",
                "`propensity` is 0.5, but the candidate `a` that was offered has",
            ),
            (
                "\"probability\":0.75",
                "\"probability\":1.75",
                "`candidates[1].probability` is 1.75, but",
            ),
            (
                "\"content\":\"b\"",
                "\"content\":\"a\"",
                "`candidates[1].content` is `a`, which is there already",
            ),
            (
                "\"offer\":\"a\"",
                "\"offer\":\"c\"",
                "`offer` is `c`, which is none of the candidates",
            ),
            (
                "2026-01-05T",
                "2026-13-05T",
                "`decided_at` is `2026-13-05T10:00:00.000Z`, which is no time",
            ),
            ("\"settled\":true", "\"settled\":tru", "`settled`: expected "),
        ] {
            let wrong = right.replace(from, to);
            assert_ne!(wrong, right, "{from}");
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            write!(file, "{right}\n\n{wrong}\n").expect("to write");
            let mut log = LogFile::open(file.path()).expect("it is there");
            assert!(log.next_decision().is_ok());
            let error = log.next_decision().expect_err(to).to_string();
            let place = format!("{}, line 3: ", file.path().display());
            assert!(
                error.strip_prefix(&place).is_some_and(|error| error.starts_with(told)),
                "{error}\n{told}"
            );
        }
        assert!(parse(format!("{right} {{}}").as_bytes()).is_err());
        assert!(parse(&[0xff, 0xfe]).is_err());
    }
}
