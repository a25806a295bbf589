//! Who the synthetic users are: what the journey sees of them, what it doesn't, and what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use usher_domain::hash::hash_parts;

/// The world file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// What the journey sees: of each trait its values, with their weights. Traits are independent of each other.
    pub traits: BTreeMap<String, BTreeMap<String, f64>>,
    /// What it doesn't see: who belongs together.
    pub groups: BTreeMap<String, Group>,
    /// Where something is offered.
    pub slots: BTreeMap<String, Slot>,
}

/// A group of users who like the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The group's weight among all.
    pub share: f64,
    /// By trait and value, how many times likelier its users are to be in this group.
    #[serde(default)]
    pub leanings: BTreeMap<String, BTreeMap<String, f64>>,
}

/// A place for offers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The event type at which the journey chooses an offer for it.
    pub on: String,
    /// By offer and group, the probability of a click.
    pub clicks: BTreeMap<String, BTreeMap<String, f64>>,
}

/// A user.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// By trait, its value.
    pub traits: BTreeMap<String, String>,
    /// The group, which nobody but the simulation knows.
    pub group: String,
    /// By group, how likely this user is to be in it, for whoever knows the traits and the world.
    likely: BTreeMap<String, f64>,
}

impl World {
    /// Reads and checks a world.
    ///
    /// # Errors
    /// When the file can't be read, or what it says makes no world.
    pub fn read(path: &Path) -> Result<World> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the world from {}", path.display()))?;
        World::parse(&text).with_context(|| format!("{} is no world", path.display()))
    }

    fn parse(text: &str) -> Result<World> {
        let world: World = serde_json::from_str(text)?;
        world.check()?;
        Ok(world)
    }

    fn check(&self) -> Result<()> {
        if self.groups.is_empty() || self.slots.is_empty() {
            bail!("it needs at least one of `groups` and one of `slots`");
        }
        let is_weight = |weight: f64| weight.is_finite() && weight >= 0.0;
        for (name, values) in &self.traits {
            if !values.values().all(|weight| is_weight(*weight)) || values.values().sum::<f64>() <= 0.0 {
                bail!("traits.{name}: weights are 0 or more, and not all 0");
            }
        }
        for (name, group) in &self.groups {
            if !(is_weight(group.share) && group.share > 0.0) {
                bail!("groups.{name}.share: a number above 0");
            }
            for (leaning, factors) in &group.leanings {
                let Some(values) = self.traits.get(leaning) else {
                    bail!("groups.{name}.leanings.{leaning}: there is no such trait");
                };
                for (value, factor) in factors {
                    if !values.contains_key(value) {
                        bail!("groups.{name}.leanings.{leaning}.{value}: the trait has no such value");
                    }
                    if !(is_weight(*factor) && *factor > 0.0) {
                        bail!("groups.{name}.leanings.{leaning}.{value}: a number above 0");
                    }
                }
            }
        }
        let mut offers = BTreeSet::new();
        for (name, slot) in &self.slots {
            if slot.clicks.len() < 2 {
                bail!("slots.{name}.clicks: at least two offers, or there is nothing to choose");
            }
            for (offer, clicks) in &slot.clicks {
                if !offers.insert(offer) {
                    bail!("slots.{name}.clicks.{offer}: it is in another slot too, and a click would not tell which");
                }
                if !clicks.keys().eq(self.groups.keys()) {
                    let groups: Vec<&str> = self.groups.keys().map(String::as_str).collect();
                    bail!(
                        "slots.{name}.clicks.{offer}: a probability for each of {}",
                        groups.join(", ")
                    );
                }
                if !clicks.values().all(|click| (0.0..=1.0).contains(click)) {
                    bail!("slots.{name}.clicks.{offer}: probabilities are from 0 to 1");
                }
            }
        }
        Ok(())
    }

    /// The user of this number: the same for the same seed.
    pub fn person(&self, seed: u64, user: u32) -> Person {
        let traits: BTreeMap<String, String> = self
            .traits
            .iter()
            .map(|(name, values)| {
                (
                    name.clone(),
                    pick(values, chance(seed, &[b"trait", name.as_bytes()], user)),
                )
            })
            .collect();
        let weight = |group: &Group| {
            let factors = traits
                .iter()
                .filter_map(|(name, value)| group.leanings.get(name)?.get(value));
            group.share * factors.product::<f64>()
        };
        let mut likely: BTreeMap<String, f64> = self
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), weight(group)))
            .collect();
        let sum: f64 = likely.values().sum();
        likely.values_mut().for_each(|weight| *weight /= sum);
        let group = pick(&likely, chance(seed, &[b"group"], user));
        Person { traits, group, likely }
    }
}

impl Slot {
    /// How likely this user clicks on an offer; nothing for one that the world doesn't know.
    pub fn click_probability(&self, person: &Person, offer: &str) -> Option<f64> {
        self.clicks.get(offer)?.get(&person.group).copied()
    }

    /// The offer that this user is likeliest to click on.
    pub fn best(&self, person: &Person) -> &str {
        self.first_by(|clicks| clicks.get(&person.group).copied().unwrap_or(0.0))
    }

    /// The offer that whoever knows the world and the user's traits, but not the group, would choose.
    pub fn best_visible(&self, person: &Person) -> &str {
        self.first_by(|clicks| {
            let expected = clicks
                .iter()
                .map(|(group, click)| click * person.likely.get(group).copied().unwrap_or(0.0));
            expected.sum()
        })
    }

    fn first_by(&self, value: impl Fn(&BTreeMap<String, f64>) -> f64) -> &str {
        let mut best = ("", f64::NEG_INFINITY);
        for (offer, clicks) in &self.clicks {
            let value = value(clicks);
            if value > best.1 {
                best = (offer, value);
            }
        }
        best.0
    }
}

/// A number from 0 up to 1 that depends on the seed, what it is for, and whom.
pub fn chance(seed: u64, purpose: &[&[u8]], user: u32) -> f64 {
    let (seed, user) = (seed.to_le_bytes(), user.to_le_bytes());
    let mut parts: Vec<&[u8]> = vec![&seed, &user];
    parts.extend_from_slice(purpose);
    // The upper 53 bits are all that a double holds.
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (hash_parts(&parts) >> (u128::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

/// The key in whose part of all weights the point, from 0 up to 1, lies.
fn pick(weights: &BTreeMap<String, f64>, point: f64) -> String {
    let mut left = point * weights.values().sum::<f64>();
    let mut last = "";
    for (key, weight) in weights.iter().filter(|(_, weight)| **weight > 0.0) {
        last = key;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last.to_owned()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two traits, of which one tells the group nine times out of ten.
    pub const SMALL: &str = r#"{
        "traits": { "plan": { "free": 1, "team": 1 }, "city": { "Rome": 3, "Oslo": 1 } },
        "groups": {
            "a": { "share": 1, "leanings": { "plan": { "free": 9 } } },
            "b": { "share": 1, "leanings": { "plan": { "team": 9 } } }
        },
        "slots": { "banner": { "on": "page_view", "clicks": {
            "x": { "a": 0.4, "b": 0.1 }, "y": { "a": 0.2, "b": 0.3 }
        } } }
    }"#;

    pub fn small() -> World {
        World::parse(SMALL).expect("a world")
    }

    #[test]
    fn users_are_as_the_world_says() {
        let world = small();
        let people: Vec<Person> = (0..20_000).map(|user| world.person(7, user)).collect();
        let share = |is: &dyn Fn(&Person) -> bool| people.iter().filter(|person| is(person)).count() as f64 / 20_000.0;
        let slot = &world.slots["banner"];
        for (what, expected, found) in [
            ("in Rome", 0.75, share(&|person| person.traits["city"] == "Rome")),
            ("free", 0.5, share(&|person| person.traits["plan"] == "free")),
            (
                "what the plan says",
                0.9,
                share(&|person| (person.traits["plan"] == "free") == (person.group == "a")),
            ),
            (
                "best is what seems best",
                0.9,
                share(&|person| slot.best(person) == slot.best_visible(person)),
            ),
        ] {
            assert!((expected - found).abs() < 0.015, "{what}: {found}");
        }
        assert_eq!(people[5], world.person(7, 5), "the same seed makes the same users");
        let in_a = people.iter().find(|person| person.group == "a").expect("somebody");
        assert_eq!((slot.best(in_a), slot.click_probability(in_a, "y")), ("x", Some(0.2)));
        assert_eq!(slot.click_probability(in_a, "z"), None);
    }

    #[test]
    fn what_makes_no_world_is_told() {
        for (from, to, told) in [
            (r#""share": 1"#, r#""share": 0"#, "groups.a.share"),
            (r#""free": 9"#, r#""fre": 9"#, "groups.a.leanings.plan.fre"),
            (
                r#""leanings": { "plan""#,
                r#""leanings": { "plans""#,
                "there is no such trait",
            ),
            (r#""b": 0.1"#, r#""c": 0.1"#, "a probability for each of a, b"),
            ("0.4", "1.4", "from 0 to 1"),
            (r#", "y": { "a": 0.2, "b": 0.3 }"#, "", "at least two offers"),
            (r#""on""#, r#""at""#, "unknown field"),
        ] {
            let error = World::parse(&SMALL.replacen(from, to, 1)).expect_err(from).to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
