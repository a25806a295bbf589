//! `usher schema`: what a journey file may say, for editors.

use anyhow::{Context, Result};
use usher_domain::journey::json_schema;

use crate::Verdict;
use crate::people::say;

/// Runs the command.
///
/// # Errors
/// When it can't be printed.
pub fn run() -> Result<Verdict> {
    say(&text()?)?;
    Ok(Verdict::AllWell)
}

fn text() -> Result<String> {
    let schema = serde_json::to_string_pretty(&json_schema()).context("cannot write the schema")?;
    Ok(format!("{schema}\n"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use saphyr::{LoadableYamlNode, Scalar, Yaml};
    use serde_json::Value;
    use usher_domain::journey::Journey;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_schema_in_the_repository_is_up_to_date() {
        let path = root().join("journey/journey.schema.json");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        let now = text().expect("a schema");
        assert!(stored == now, "run: usher schema > journey/journey.schema.json");
    }

    /// A YAML document as editors see it.
    fn json(yaml: &Yaml<'_>) -> Value {
        match yaml {
            Yaml::Value(Scalar::Null) => Value::Null,
            Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
            Yaml::Value(Scalar::Integer(number)) => (*number).into(),
            Yaml::Value(Scalar::FloatingPoint(number)) => (**number).into(),
            Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
            Yaml::Sequence(items) => items.iter().map(json).collect(),
            Yaml::Mapping(entries) => {
                let name = |key: &Yaml<'_>| match json(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                Value::Object(entries.iter().map(|(key, value)| (name(key), json(value))).collect())
            }
            other => panic!("not in a journey: {other:?}"),
        }
    }

    fn instance(text: &str) -> Value {
        json(&Yaml::load_from_str(text).expect("YAML")[0])
    }

    /// Every journey file of the repository that can be read.
    fn samples(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                samples(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }

    #[test]
    fn what_the_reader_accepts_is_valid_and_what_the_schema_refuses_the_reader_refuses_too() {
        let validator = jsonschema::validator_for(&json_schema()).expect("a schema");
        let mut paths = Vec::new();
        for folder in ["journey", "examples", "tests/scenarios", "fuzz/seeds/journey"] {
            samples(&root().join(folder), &mut paths);
        }
        let mut read = 0;
        for path in &paths {
            let text = std::fs::read_to_string(path).expect("a file");
            if Journey::parse(&text).is_ok() {
                let errors: Vec<String> = validator
                    .iter_errors(&instance(&text))
                    .map(|error| error.to_string())
                    .collect();
                assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
                read += 1;
            }
        }
        assert!(read >= 8, "{read} of {paths:?}");
        const RULE: &str = "journey: j\ncontents: [{ id: c }, { id: d }]\nsteps: [{ id: s, on: a }]\nexperiments: [{ id: e, arms: { x: 1, y: 2.5 } }]\ntriggers:\n  - { id: r, offer: c, slot: s, ";
        for (rule, is_valid) in [
            ("on: a }", true),
            ("on: [a, b], when: true, limit: 1, holdout: 5% }", true),
            ("when: steps.s.done, limit: { count: 1, per: session } }", true),
            ("enters: steps.s.done, cooldown: 6h, priority: -1 }", true),
            ("after: 1h, since: steps.s }", true),
            (
                "after: [1h, 2h], since: { event: a, when: true }, offer: [c, d] }",
                false,
            ), // `offer` is there twice
            ("at: '09:00', days: [1, 2], since: [a, b] }", true),
            (
                "at: 9:00, since: session.end, holdout: { share: 0.5%, salt: x } }",
                true,
            ),
            ("}", false),
            ("after: 1h }", false),
            ("since: steps.s }", false),
            ("on: a, after: 1h, since: any }", false),
            ("after: 1h, at: '09:00', since: any }", false),
            ("enters: 'true', leaves: 'true' }", false),
            ("on: a, limit: 0 }", false),
            ("on: a, holdout: 0.05 }", false),
            ("on: a, coldown: 1h }", false),
        ] {
            let text = format!("{RULE}{rule}\n");
            let reads = Journey::parse(&text).is_ok();
            assert_eq!(reads, is_valid, "the reader: {rule}");
            if let Ok(documents) = Yaml::load_from_str(&text) {
                assert_eq!(validator.is_valid(&json(&documents[0])), is_valid, "the schema: {rule}");
            }
        }
        for (feature, is_valid) in [
            ("{ count: a, within: 10m }", true),
            ("{ count: a, per: user, when: 'true' }", true),
            ("{ last: properties.plan, on: any, when: event.category == 'x' }", true),
            ("{ score: { a: 1, b: -2 }, half_life: 1h }", true),
            ("{ rate: { of: a, to: [a, b], prior: [0, 1] } }", true),
            ("{ sessions: mean_duration }", true),
            ("{ count: a, sum: properties.n }", false),
            ("{ within: 10m }", false),
            ("{ count: a, on: b }", false),
            ("{ first: category, within: 1h }", false),
            ("{ score: { a: 1 } }", false),
            ("{ count: a, within: 10m, per: session }", false),
            ("{ sessions: length }", false),
        ] {
            let text = format!("journey: j\nfeatures: {{ f: {feature} }}\n");
            assert_eq!(Journey::parse(&text).is_ok(), is_valid, "the reader: {feature}");
            assert_eq!(validator.is_valid(&instance(&text)), is_valid, "the schema: {feature}");
        }
    }
}
