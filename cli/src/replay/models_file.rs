//! Models from a file, for choosing without a cloud.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use usher_domain::bandit::snapshot::ModelSnapshot;
use usher_domain::bandit::state::SlotState;
use usher_domain::journey::Journey;
use usher_domain::snapshots::{Models, SlotModel, Snapshots};
use usher_wire::model_file;

/// The models of a file.
pub struct ModelsFile {
    path: String,
    models: Vec<(String, SlotState)>,
}

impl ModelsFile {
    /// Reads it: a model a line, as `usher models export` writes them.
    ///
    /// # Errors
    /// When it can't be read, or a line is no model.
    pub fn load(path: &Path) -> Result<ModelsFile> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let models = lines
            .map(|(number, line)| model_file::from_json(line).with_context(|| format!("{name}, line {number}")))
            .collect::<Result<Vec<_>>>()?;
        if models.is_empty() {
            bail!("{name} has no models; write it with `usher models export`");
        }
        Ok(ModelsFile { path: name, models })
    }

    /// What a journey's learners know by it. A slot whose model is not in the file, or was learned with another layout of the
    /// context, chooses as if it had learned nothing; a warning says so.
    pub fn snapshots(&self, journey: &Journey) -> Snapshots {
        let mut slots = Vec::new();
        for learner in journey.learners.iter().filter(|learner| learner.learner.learns()) {
            let mut of_slot = self.models.iter().filter(|(slot, _)| *slot == learner.slot).peekable();
            let is_known = of_slot.peek().is_some();
            let fitting = of_slot.find(|(_, state)| state.layout() == learner.layout.fingerprint());
            match fitting {
                Some((slot, state)) => {
                    let model = ModelSnapshot::new(state, &learner.layout, &learner.learner);
                    slots.push((slot.clone(), SlotModel::Ready(Arc::new(model))));
                }
                None => {
                    let why = match is_known {
                        true => "was learned with another `context` or `contents`",
                        false => "is not there",
                    };
                    eprintln!(
                        "warning: the model of the slot {} {why} in {}: journey `{}` chooses as if it had learned nothing",
                        learner.slot, self.path, journey.name
                    );
                }
            }
        }
        Snapshots {
            models: Arc::new(Models::new(slots)),
            ..Snapshots::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const JOURNEY: &str = "journey: j
slots: { s: { learner: linear_thompson, context: { done: steps.d.done } } }
steps: [{ id: d, on: d }]
contents: [{ id: a }, { id: b }]
triggers:
  - { id: r, on: click, choose: [a, b], slot: s }
  - { id: r2, on: click, choose: [a, b], slot: other }
";

    fn journey(text: &str) -> Journey {
        Journey::parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", text)))
    }

    #[test]
    fn a_model_is_used_where_it_fits() {
        let known = journey(JOURNEY);
        let state = SlotState::new(&known.learners[0].layout, None);
        let mut file = tempfile::NamedTempFile::new().expect("a place for files");
        writeln!(file, "{}\n", model_file::to_json("s", &state)).expect("to a file");
        let models = ModelsFile::load(file.path()).expect("models");
        let snapshots = models.snapshots(&known);
        assert!(
            matches!(snapshots.models.of("s"), Some(SlotModel::Ready(model)) if model.version() == state.version())
        );
        assert!(snapshots.models.of("other").is_none());
        let changed = journey(&JOURNEY.replace("{ done: steps.d.done }", "{ finished: steps.d.done }"));
        assert!(models.snapshots(&changed).models.of("s").is_none());
    }

    #[test]
    fn what_is_no_model_is_told_with_its_line() {
        let mut file = tempfile::NamedTempFile::new().expect("a place for files");
        assert!(ModelsFile::load(file.path()).is_err(), "it is empty");
        writeln!(file, "\n{{}}").expect("to a file");
        let error = ModelsFile::load(file.path()).err().expect("no model");
        assert!(error.to_string().contains("line 2"), "{error:#}");
    }
}
