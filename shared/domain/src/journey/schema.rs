//! The JSON Schema of a journey file, for completion and hints in editors, from the reader's own tables of keys.

use serde_json::{Map, Value, json};

use super::keys::{Key, Mapping, Shape, TOP};
use super::read_feature::{KINDS, OPTION_KEYS};
use crate::event::Field;
use crate::limits::*;

/// The schema, in the form that editors read (<https://json-schema.org/draft/2020-12>).
pub fn json_schema() -> Value {
    let mut schema = of_mapping(&TOP);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Usher journey".into();
    schema["description"] = "What an onboarding keeps of each user, what it can offer, and when.".into();
    schema["$defs"] = json!({
        "name": {
            // YAML reads some names as numbers.
            "type": ["string", "integer"],
            "pattern": "^[A-Za-z0-9_.-]+$",
            "maxLength": IDENTIFIER_BYTES_MAX,
        },
        "condition": {
            "description": "A CEL expression over event, features, steps, traits, session, arms, time and trends.",
            "type": ["string", "boolean"],
            "maxLength": CONDITION_BYTES_MAX,
        },
        "duration": {
            "type": "string",
            "pattern": "^\\s*[0-9].*[a-z]\\s*$",
            "examples": ["90s", "30m", "24h", "7d"],
        },
        "share": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?\\s*%$", "examples": ["5%"] },
        "time_of_day": {
            "type": "string",
            "pattern": "^([01]?[0-9]|2[0-3]):[0-5]?[0-9]$",
            "examples": ["09:00", "22:00"],
        },
        "event_type": { "type": "string", "minLength": 1, "maxLength": EVENT_TYPE_BYTES_MAX },
        "event_types": {
            "anyOf": [
                { "$ref": "#/$defs/event_type" },
                { "type": "array", "items": { "$ref": "#/$defs/event_type" }, "minItems": 1, "maxItems": EVENT_TYPES_MAX },
            ],
        },
        "field": {
            "anyOf": [
                { "enum": Field::NAMED.map(|(name, _)| name) },
                { "type": "string", "pattern": "^(event\\.)?[a-z_.]+$|^(event\\.)?properties\\..+$" },
            ],
            "examples": ["category", "properties.plan"],
        },
        "feature": of_features(),
    });
    schema
}

fn of_mapping(mapping: &Mapping) -> Value {
    let properties: Map<String, Value> = mapping
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), of_key(key)))
        .collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let needed = mapping.keys.iter().filter(|key| key.is_needed);
    let needed: Vec<&str> = needed.map(|key| key.name).collect();
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    let choices = mapping.any_of.iter().map(|sets| {
        let sets: Vec<Value> = sets.iter().map(|names| json!({ "required": names })).collect();
        json!({ "anyOf": sets })
    });
    let choices: Vec<Value> = choices.collect();
    if !choices.is_empty() {
        schema["allOf"] = choices.into();
    }
    if !mapping.excludes.is_empty() {
        let excludes = mapping
            .excludes
            .iter()
            .map(|(name, others)| ((*name).to_owned(), without(others)));
        schema["dependentSchemas"] = Value::Object(excludes.collect());
    }
    schema
}

/// A mapping in which none of these keys is.
fn without(names: &[&str]) -> Value {
    let none: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), false.into())).collect();
    json!({ "properties": none })
}

fn of_key(key: &Key) -> Value {
    described(of_shape(&key.shape), key.about)
}

fn described(mut schema: Value, about: &str) -> Value {
    schema["description"] = about.into();
    schema
}

fn of_shape(shape: &Shape) -> Value {
    let defined = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    match shape {
        Shape::Name => defined("name"),
        Shape::Text => json!({ "type": ["string", "integer"] }),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Condition => defined("condition"),
        Shape::Field => defined("field"),
        Shape::EventTypes => defined("event_types"),
        Shape::Duration => defined("duration"),
        Shape::Share => defined("share"),
        Shape::TimeOfDay => defined("time_of_day"),
        Shape::Feature => defined("feature"),
        Shape::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Mapping(mapping) => of_mapping(mapping),
        Shape::List(shape, most) => json!({ "type": "array", "items": of_shape(shape), "maxItems": most }),
        Shape::OneOrMore(shape, most) => json!({
            "anyOf": [of_shape(shape), { "type": "array", "items": of_shape(shape), "maxItems": most }],
        }),
        Shape::Named(shape, most) => json!({
            "type": "object",
            "additionalProperties": of_shape(shape),
            "propertyNames": defined("name"),
            "maxProperties": most,
        }),
        Shape::Either(shapes) => {
            let shapes: Vec<Value> = shapes.iter().map(of_shape).collect();
            json!({ "anyOf": shapes })
        }
    }
}

/// A feature has the key of exactly one kind, and the options that go with it.
fn of_features() -> Value {
    let kinds = KINDS.iter();
    let mut properties: Map<String, Value> = kinds
        .map(|kind| (kind.name.to_owned(), described(of_shape(&kind.argument), kind.about)))
        .collect();
    properties.extend(OPTION_KEYS.keys.iter().map(|key| (key.name.to_owned(), of_key(key))));
    let one_of: Vec<Value> = KINDS.iter().map(|kind| json!({ "required": [kind.name] })).collect();
    let options = OPTION_KEYS.names();
    let excludes = KINDS.iter().map(|kind| {
        let others: Vec<&str> = options.iter().copied().filter(|option| !kind.takes(option)).collect();
        (kind.name.to_owned(), without(&others))
    });
    let mut excludes: Map<String, Value> = excludes.collect();
    excludes.insert("within".to_owned(), without(&["per"]));
    excludes.insert(
        "score".to_owned(),
        json!({ "required": ["half_life"], "allOf": [excludes["score"]] }),
    );
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "oneOf": one_of,
        "dependentSchemas": excludes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::Journey;

    /// Files with a key that isn't there, in every mapping that a file has, and where that is in the schema.
    const MAPPINGS: &[(&str, &str)] = &[
        ("zzz: 1", ""),
        ("sessions: { zzz: 1 }", "/properties/sessions"),
        ("dedupe: { zzz: 1 }", "/properties/dedupe"),
        ("experiments: [{ id: x, zzz: 1 }]", "/properties/experiments/items"),
        ("steps: [{ id: x, zzz: 1 }]", "/properties/steps/items"),
        ("features: { f: { zzz: 1 } }", "/$defs/feature"),
        (
            "features: { f: { rate: { zzz: 1 } } }",
            "/$defs/feature/properties/rate",
        ),
        (
            "features: { f: { step_duration: { zzz: 1 } } }",
            "/$defs/feature/properties/step_duration",
        ),
        ("contents: [{ id: x, zzz: 1 }]", "/properties/contents/items"),
        ("triggers: [{ id: x, zzz: 1 }]", "/properties/triggers/items"),
        (
            "triggers: [{ id: x, since: { zzz: 1 } }]",
            "/properties/triggers/items/properties/since/anyOf/1",
        ),
        (
            "triggers: [{ id: x, limit: { zzz: 1 } }]",
            "/properties/triggers/items/properties/limit/anyOf/1",
        ),
        (
            "triggers: [{ id: x, holdout: { zzz: 1 } }]",
            "/properties/triggers/items/properties/holdout/anyOf/1",
        ),
        ("policy: { zzz: 1 }", "/properties/policy"),
        ("trends: { t: { zzz: 1 } }", "/properties/trends/additionalProperties"),
        ("slots: { s: { zzz: 1 } }", "/properties/slots/additionalProperties"),
        (
            "slots: { s: { context: { f: { zzz: 1 } } } }",
            "/properties/slots/additionalProperties/properties/context/additionalProperties/anyOf/1",
        ),
        (
            "slots: { s: { contents: { f: { zzz: 1 } } } }",
            "/properties/slots/additionalProperties/properties/contents/additionalProperties/anyOf/1",
        ),
        ("outcomes: { zzz: 1 }", "/properties/outcomes"),
        (
            "outcomes: { reward: { r: { zzz: 1 } } }",
            "/properties/outcomes/properties/reward/additionalProperties/anyOf/1",
        ),
        (
            "policy: { cap: { zzz: 1 } }",
            "/properties/policy/properties/cap/anyOf/0",
        ),
        (
            "policy: { cap: [{ zzz: 1 }] }",
            "/properties/policy/properties/cap/anyOf/1/items",
        ),
        (
            "policy: { quiet_hours: { zzz: 1 } }",
            "/properties/policy/properties/quiet_hours",
        ),
        (
            "policy: { holdout: { zzz: 1 } }",
            "/properties/policy/properties/holdout/anyOf/1",
        ),
        (
            "policy: { groups: { g: { zzz: 1 } } }",
            "/properties/policy/properties/groups/additionalProperties",
        ),
    ];

    /// The pointers of all mappings with keys of their own.
    fn mappings(schema: &Value, pointer: &str, found: &mut Vec<String>) {
        if schema["additionalProperties"] == Value::Bool(false) {
            found.push(pointer.to_owned());
        }
        let parts: Vec<(String, &Value)> = match schema {
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, value)| (index.to_string(), value))
                .collect(),
            _ => Vec::new(),
        };
        for (name, value) in parts {
            mappings(value, &format!("{pointer}/{name}"), found);
        }
    }

    #[test]
    fn the_reader_and_the_schema_have_the_same_keys_everywhere() {
        let schema = json_schema();
        for (text, pointer) in MAPPINGS {
            let errors = Journey::parse(text).expect_err(text).errors;
            let told = errors
                .iter()
                .find_map(|error| error.message.split_once("there is no key `zzz` here; the keys are "));
            let (_, told) = told.unwrap_or_else(|| panic!("{text}: {errors:?}"));
            let mut reader: Vec<&str> = told.split(", ").collect();
            let properties = schema.pointer(pointer).expect(pointer)["properties"].as_object();
            let mut listed: Vec<&str> = properties.expect(pointer).keys().map(String::as_str).collect();
            reader.sort_unstable();
            listed.sort_unstable();
            assert_eq!(reader, listed, "{text}");
        }
        let mut all = Vec::new();
        mappings(&schema, "", &mut all);
        all.sort_unstable();
        let mut tried: Vec<&str> = MAPPINGS.iter().map(|(_, pointer)| *pointer).collect();
        tried.sort_unstable();
        assert_eq!(all, tried, "every mapping of the schema is one of the table");
    }
}
