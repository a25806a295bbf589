//! Which keys may be one user's: they are folded by one thread, so that one profile can take in another.

use std::collections::HashMap;

/// The keys that events named together, whether or not their profiles were merged. Keys never leave.
#[derive(Debug, Default)]
pub struct Families {
    /// The family of a key, by its index.
    of_key: HashMap<String, usize>,
    /// A family's keys and its lane. One that was joined with another has none left.
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    keys: Vec<String>,
    lane: usize,
}

/// A key that has another lane from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The key.
    pub key: String,
    /// The lane that it was in.
    pub from: usize,
    /// Its lane.
    pub to: usize,
}

impl Families {
    /// Whether no keys were named together so far.
    pub fn is_empty(&self) -> bool {
        self.of_key.is_empty()
    }

    /// The lane of a key that was named with another.
    pub fn lane(&self, key: &str) -> Option<usize> {
        self.of_key.get(key).map(|family| self.families[*family].lane)
    }

    /// Notes that an event named two keys. `lane_alone` is the lane of a key without family. Gives the keys whose lane is
    /// another one now.
    pub fn join(&mut self, one: &str, other: &str, lane_alone: impl Fn(&str) -> usize) -> Vec<Move> {
        let families = [one, other].map(|key| match self.of_key.get(key) {
            Some(family) => *family,
            None => {
                self.families.push(Family {
                    keys: vec![key.to_owned()],
                    lane: lane_alone(key),
                });
                let family = self.families.len() - 1;
                self.of_key.insert(key.to_owned(), family);
                family
            }
        });
        let [mut stays, mut leaves] = families;
        if stays == leaves {
            return Vec::new();
        }
        if self.families[stays].keys.len() < self.families[leaves].keys.len() {
            std::mem::swap(&mut stays, &mut leaves);
        }
        let keys = std::mem::take(&mut self.families[leaves].keys);
        let (from, to) = (self.families[leaves].lane, self.families[stays].lane);
        for key in &keys {
            if let Some(family) = self.of_key.get_mut(key) {
                *family = stays;
            }
        }
        let moves = keys.iter().filter(|_| from != to).map(|key| Move {
            key: key.clone(),
            from,
            to,
        });
        let moves = moves.collect();
        self.families[stays].keys.extend(keys);
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_named_together_share_a_lane_and_only_the_fewer_move() {
        let mut families = Families::default();
        let alone = |key: &str| usize::from(key.as_bytes()[0] - b'a');
        let moved = |key: &str, from, to| Move {
            key: key.to_owned(),
            from,
            to,
        };
        assert_eq!(families.lane("a"), None);
        assert_eq!(families.join("a", "b", alone), [moved("b", 1, 0)]);
        assert_eq!(families.join("b", "a", alone), []);
        assert_eq!(families.join("c", "b", alone), [moved("c", 2, 0)]);
        assert_eq!(families.join("e", "f", alone), [moved("f", 5, 4)]);
        assert_eq!(families.join("f", "c", alone), [moved("e", 4, 0), moved("f", 4, 0)]);
        for key in ["a", "b", "c", "e", "f"] {
            assert_eq!(families.lane(key), Some(0), "{key}");
        }
        assert_eq!(families.join("ax", "ay", alone), [], "they were in one lane");
    }
}
