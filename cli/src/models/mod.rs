//! `usher models`: look at what the slots' learners know, save it, put it back, or forget it.

mod text;

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::Instant;
use usher_aws::dynamodb::DynamoModelTable;
use usher_domain::bandit::state::SlotState;
use usher_domain::journey::{Journey, SlotLearner};
use usher_pipeline::models::{FoundModel, KeptModel, head_key, model_prefix, read_items, whole_model};
use usher_pipeline::ports::{ModelItem, ModelKey, ModelTable, ModelWriteAnswer, ReadOf};
use usher_pipeline::retry::until_answered;
use usher_wire::model_file;

use crate::Verdict;
use crate::args::{
    ExportModelOptions, ImportModelOptions, ModelsCommand, ModelsOptions, ModelsPlace, ResetModelOptions,
};
use crate::arrival_clock::wall_clock;
use crate::people::{counted, say};
use crate::send::load_clients;
use crate::{journey_file, project};

/// How long reading or writing a model may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the table is asked before it counts as failed.
const TABLE_ATTEMPTS_MAX: u32 = 6;
/// How often a learner may come first before it is told.
const CONFLICTS_MAX: u32 = 20;
/// The file name that stands for standard input or output.
const STANDARD_STREAM: &str = "-";

/// Runs the command.
///
/// # Errors
/// When the journey or the table can't be read or written, or what was asked for is not there.
pub async fn run(options: ModelsOptions) -> Result<Verdict> {
    match options.command {
        ModelsCommand::List(options) => list(&options.place).await,
        ModelsCommand::Show(options) => show(&options.slot, &options.place).await,
        ModelsCommand::Export(options) => export(&options).await,
        ModelsCommand::Import(options) => import(&options).await,
        ModelsCommand::Reset(options) => reset(&options).await,
    }
}

/// The journey and the table.
struct Place {
    journey: Journey,
    table: DynamoModelTable,
    name: String,
}

impl Place {
    async fn open(place: &ModelsPlace) -> Result<Place> {
        let journey_path = match &place.journey {
            Some(path) => path.clone(),
            None => project::find_journey(None, &project::find_template(None)?)?,
        };
        let clients = load_clients(place.endpoint_url.as_deref()).await;
        Ok(Place {
            journey: journey_file::load(&journey_path)?,
            table: DynamoModelTable::new(clients.dynamodb, &place.table),
            name: place.table.clone(),
        })
    }

    fn learner(&self, slot: &str) -> Result<&SlotLearner> {
        let mut learners = self.journey.learners.iter();
        learners.find(|learner| learner.slot == slot).ok_or_else(|| {
            let known: Vec<&str> = self
                .journey
                .learners
                .iter()
                .map(|learner| learner.slot.as_str())
                .collect();
            match known.is_empty() {
                true => anyhow!("the journey has no `choose`, so no slot has a learner"),
                false => anyhow!(
                    "the journey has no learner for the slot {slot}; it has {}",
                    known.join(", ")
                ),
            }
        })
    }

    fn cannot(&self, what: &str) -> String {
        format!(
            "cannot {what} the table {}; is its name right (--table), and is this the right account, region or endpoint \
             (--endpoint-url)?",
            self.name
        )
    }

    async fn found(&self, learner: &SlotLearner) -> Result<FoundModel> {
        let deadline = Instant::now() + PATIENCE;
        let key = head_key(&learner.slot, learner.layout.fingerprint());
        let read = read_items(&self.table, vec![key.clone()], ReadOf::Latest, deadline).await;
        let mut found = read.with_context(|| self.cannot("read"))?;
        if let Some(why) = found.unreadable.remove(&key) {
            return Ok(FoundModel::Unreadable(why));
        }
        let head = found.items.remove(&key);
        let whole = whole_model(&self.table, head, ReadOf::Latest, deadline, &mut found.read_units).await;
        whole.with_context(|| self.cannot("read"))
    }

    /// Everything that is stored of the slot's model for the journey's layout, readable as a model or not.
    async fn stored(&self, learner: &SlotLearner) -> Result<Vec<ModelItem>> {
        let keys = self
            .table
            .keys_of_slot(&learner.slot)
            .await
            .with_context(|| self.cannot("read"))?;
        let prefix = model_prefix(learner.layout.fingerprint());
        let ours = keys.into_iter().filter(|key| key.part.starts_with(&prefix)).collect();
        let read = read_items(&self.table, ours, ReadOf::Latest, Instant::now() + PATIENCE).await;
        let found = read.with_context(|| self.cannot("read"))?;
        if let Some((ModelKey { slot, part }, why)) = found.unreadable.into_iter().next() {
            bail!(
                "an item of the model is none that any version of Usher writes ({why}); delete it: aws dynamodb delete-item \
                 --table-name {} --key '{{\"slot\":{{\"S\":\"{slot}\"}},\"part\":{{\"S\":\"{part}\"}}}}'",
                self.name
            );
        }
        Ok(found.items.into_values().collect())
    }

    /// Puts a state in place of whatever is stored.
    async fn replace(&self, learner: &SlotLearner, state: &SlotState) -> Result<KeptModel> {
        for _ in 0..CONFLICTS_MAX {
            let stored = self.stored(learner).await?;
            let model = KeptModel::in_place_of(&learner.slot, state.clone(), &stored, wall_clock());
            let writes = model.writes(wall_clock())?;
            let deadline = Instant::now() + PATIENCE;
            let write = || self.table.write(&writes.writes);
            let answer = until_answered(deadline, TABLE_ATTEMPTS_MAX, write).await;
            match answer.with_context(|| self.cannot("write"))? {
                ModelWriteAnswer::Written { .. } => return Ok(writes.stored),
                // A learner came first: what it noted of how far it is must stay.
                ModelWriteAnswer::Conflict => {}
            }
        }
        bail!("the model is written by others all the time; nothing was changed, try again")
    }
}

async fn list(place: &ModelsPlace) -> Result<Verdict> {
    let place = Place::open(place).await?;
    if place.journey.learners.is_empty() {
        say("The journey has no `choose`, so no slot has a learner.\n")?;
        return Ok(Verdict::AllWell);
    }
    let mut rows = Vec::new();
    for learner in &place.journey.learners {
        let found = place.found(learner).await?;
        let keys = place
            .table
            .keys_of_slot(&learner.slot)
            .await
            .with_context(|| place.cannot("read"))?;
        let prefix = model_prefix(learner.layout.fingerprint());
        let heads = keys.iter().filter(|key| key.part.ends_with("#head"));
        let others = heads.filter(|key| !key.part.starts_with(&prefix)).count();
        rows.push((learner, found, others));
    }
    say(&text::list(&rows))?;
    let is_unreadable = rows
        .iter()
        .any(|(_, found, _)| matches!(found, FoundModel::Unreadable(_)));
    Ok(if is_unreadable {
        Verdict::Wrong
    } else {
        Verdict::AllWell
    })
}

async fn show(slot: &str, place: &ModelsPlace) -> Result<Verdict> {
    let place = Place::open(place).await?;
    let learner = place.learner(slot)?;
    match place.found(learner).await? {
        FoundModel::Ready(model) => {
            say(&text::model(learner, &model))?;
            Ok(Verdict::AllWell)
        }
        FoundModel::Missing => {
            say(&format!(
                "Nothing was learned for the slot {slot} yet, as the journey lays out its context.\n"
            ))?;
            Ok(Verdict::AllWell)
        }
        FoundModel::Unreadable(why) => bail!(unreadable(slot, &why)),
    }
}

fn unreadable(slot: &str, why: &str) -> String {
    format!(
        "the model of {slot} can't be read: {why}\n  `usher models import {slot} FILE` puts an export in its place, \
         `usher models reset {slot}` an empty one"
    )
}

async fn export(options: &ExportModelOptions) -> Result<Verdict> {
    let place = Place::open(&options.place).await?;
    let learner = place.learner(&options.slot)?;
    let model = match place.found(learner).await? {
        FoundModel::Ready(model) => model,
        FoundModel::Missing => bail!("nothing was learned for the slot {} yet", options.slot),
        FoundModel::Unreadable(why) => bail!(unreadable(&options.slot, &why)),
    };
    let json = model_file::to_json(&options.slot, &model.state) + "\n";
    match options
        .file
        .as_deref()
        .filter(|file| *file != Path::new(STANDARD_STREAM))
    {
        None => say(&json)?,
        Some(file) => {
            std::fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
            let arms = counted(model.state.arms().len(), "content");
            eprintln!("{}: {arms}, version {:016x}", file.display(), model.state.version());
        }
    }
    Ok(Verdict::AllWell)
}

async fn import(options: &ImportModelOptions) -> Result<Verdict> {
    let place = Place::open(&options.place).await?;
    let learner = place.learner(&options.slot)?;
    let text = read_file(&options.file)?;
    let state = state_in(&text, learner)
        .with_context(|| format!("{} can't be put into the slot {}", options.file.display(), options.slot))?;
    let stored = place.replace(learner, &state).await?;
    say(&format!(
        "{}: {}, version {:016x}\n",
        options.slot,
        counted(stored.state.arms().len(), "content"),
        stored.state.version()
    ))?;
    Ok(Verdict::AllWell)
}

/// The only model in a file, or that of the slot among several, if it was learned for the slot's context.
fn state_in(text: &str, learner: &SlotLearner) -> Result<SlotState> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut models: Vec<(String, SlotState)> = lines.map(model_file::from_json).collect::<Result<_, _>>()?;
    if models.len() > 1 {
        models.retain(|(slot, _)| *slot == learner.slot);
    }
    let (_, state) = models.pop().context("it holds no model of that slot")?;
    let (layout, expected) = (state.layout(), learner.layout.fingerprint());
    if layout != expected {
        bail!(
            "it was learned for another context (layout {layout}, and the journey's slot has {expected}): import it with the \
             journey that it was exported with"
        );
    }
    let shared_dimension = state.shared().map(|shared| shared.dimension());
    if state.dimension() != learner.layout.dimension() || shared_dimension != learner.layout.shared_dimension() {
        bail!("its numbers are not as many as its layout has");
    }
    Ok(state)
}

fn read_file(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match path == Path::new(STANDARD_STREAM) {
        true => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

async fn reset(options: &ResetModelOptions) -> Result<Verdict> {
    let place = Place::open(&options.place).await?;
    let learner = place.learner(&options.slot)?;
    let knows = match place.found(learner).await? {
        FoundModel::Missing => {
            say(&format!("Nothing was learned for the slot {} yet.\n", options.slot))?;
            return Ok(Verdict::AllWell);
        }
        FoundModel::Ready(model) => text::what_it_knows(&model.state),
        FoundModel::Unreadable(_) => "a model that can't be read".to_owned(),
    };
    if !options.yes && !is_sure(&options.slot, &knows)? {
        say("Nothing was changed.\n")?;
        return Ok(Verdict::AllWell);
    }
    let state = SlotState::new(&learner.layout, learner.half_life_ms);
    place.replace(learner, &state).await?;
    say(&format!("{}: {knows} forgotten\n", options.slot))?;
    Ok(Verdict::AllWell)
}

fn is_sure(slot: &str, knows: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!("nothing was changed, as there is nobody to ask: --yes forgets {knows} of {slot}");
    }
    eprint!("Forget {knows} of {slot}? Save it first with `usher models export {slot} FILE`. [y/N] ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use usher_domain::bandit::state::Outcome;
    use usher_domain::time::Timestamp;

    use super::*;

    const JOURNEY: &str = "journey: j\ncontents:\n  - { id: tour }\n  - { id: demo }\ntriggers:\n  - { id: a, on: click, choose: all, slot: in_app }\n";

    pub fn journey(slots: &str) -> Journey {
        let text = format!("{JOURNEY}{slots}");
        Journey::parse(&text).unwrap_or_else(|errors| panic!("{}", errors.render("journey", &text)))
    }

    pub fn state(learner: &SlotLearner) -> SlotState {
        let mut state = SlotState::new(&learner.layout, learner.half_life_ms);
        for (number, arm) in ["tour", "demo", "tour"].into_iter().enumerate() {
            let outcome = Outcome {
                arm,
                context: &learner
                    .layout
                    .context(|_| usher_domain::value::Value::Null, &Default::default()),
                content: &Default::default(),
                reward: number as f64,
                previous: None,
                at: Timestamp::from_epoch_ms(1_767_607_200_000),
            };
            state.learn(&learner.layout, &outcome);
        }
        state
    }

    #[test]
    fn a_file_goes_into_a_slot_with_its_context_only() {
        let plain = journey("");
        let other = journey("slots: { in_app: { context: { hour: time.hour } } }\n");
        let (learner, of_other) = (&plain.learners[0], &other.learners[0]);
        let state = state(learner);
        let line = model_file::to_json("in_app", &state);
        assert_eq!(state_in(&line, learner).expect("the same slot"), state);
        let renamed = model_file::to_json("email", &state);
        assert_eq!(state_in(&renamed, learner).expect("alone in its file"), state);
        assert_eq!(
            state_in(&format!("{renamed}\n{line}\n"), learner).expect("among others"),
            state
        );
        for (text, learner, told) in [
            (line.as_str(), of_other, "another context"),
            ("", learner, "no model of that slot"),
            ("{}", learner, "no model"),
        ] {
            let error = format!("{:#}", state_in(text, learner).expect_err("it does not fit"));
            assert!(error.contains(told), "{error}");
        }
    }
}
