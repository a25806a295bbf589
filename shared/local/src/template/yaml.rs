//! YAML as CloudFormation reads it: scalars keep their text, every node its line, and a short-form tag (`!Ref`) becomes its
//! long form (`Ref:`), so that what follows knows one form only.

use saphyr::{MarkedYaml, ScalarStyle, YamlData, YamlLoader};
use saphyr_parser::Parser;

use super::TemplateProblem;

/// A YAML node and the line on which it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub line: usize,
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    /// Any scalar, as text. `quoted` scalars are strings whatever they look like.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub line: usize,
    pub text: String,
}

impl Node {
    pub fn scalar(line: usize, text: impl Into<String>) -> Self {
        Self {
            line,
            value: Value::Scalar {
                text: text.into(),
                quoted: true,
            },
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|(candidate, _)| candidate.text == key)
            .map(|(_, node)| node)
    }

    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// CloudFormation takes `true` and `"true"` alike.
    pub fn as_bool(&self) -> Option<bool> {
        match self.as_text()? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }
}

/// Parses one document.
pub(super) fn parse(text: &str) -> Result<Node, TemplateProblem> {
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let loaded = Parser::new_from_str(text).load(&mut loader, false);
    let error = loaded.err().or_else(|| loader.error().cloned());
    if let Some(error) = error {
        return Err(TemplateProblem {
            line: error.marker().line(),
            message: format!("not valid YAML: {}", error.info()),
        });
    }
    match loader.into_documents().into_iter().next() {
        Some(document) => Ok(convert(&document)),
        None => Err(TemplateProblem {
            line: 1,
            message: "the file is empty; expected a template with Resources".to_owned(),
        }),
    }
}

fn convert(node: &MarkedYaml<'_>) -> Node {
    let line = node.span.start.line();
    let value = match &node.data {
        YamlData::Representation(text, style, tag) => {
            let quoted = *style != ScalarStyle::Plain;
            let scalar = match text.as_ref() {
                "" | "~" | "null" if !quoted => Value::Null,
                _ => Value::Scalar {
                    text: text.clone().into_owned(),
                    quoted,
                },
            };
            match tag {
                Some(tag) if !tag.is_yaml_core_schema() => {
                    return long_form(line, &tag.suffix, Node { line, value: scalar });
                }
                _ => scalar,
            }
        }
        YamlData::Value(scalar) => Value::Scalar {
            text: scalar_text(scalar),
            quoted: false,
        },
        YamlData::Sequence(items) => Value::List(items.iter().map(convert).collect()),
        YamlData::Mapping(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, value)| {
                    let key = convert(key);
                    let text = key.as_text().unwrap_or_default().to_owned();
                    (Key { line: key.line, text }, convert(value))
                })
                .collect(),
        ),
        YamlData::Tagged(tag, inner) => {
            let inner = convert(inner);
            if tag.is_yaml_core_schema() {
                return inner;
            }
            return long_form(line, &tag.suffix, inner);
        }
        YamlData::Alias(_) | YamlData::BadValue => Value::Null,
    };
    Node { line, value }
}

fn scalar_text(scalar: &saphyr::Scalar<'_>) -> String {
    match scalar {
        saphyr::Scalar::Null => String::new(),
        saphyr::Scalar::Boolean(value) => value.to_string(),
        saphyr::Scalar::Integer(value) => value.to_string(),
        saphyr::Scalar::FloatingPoint(value) => value.to_string(),
        saphyr::Scalar::String(value) => value.clone().into_owned(),
    }
}

/// `!Sub x` is `Fn::Sub: x`; `Ref` and `Condition` have no prefix.
fn long_form(line: usize, tag: &str, inner: Node) -> Node {
    let text = match tag {
        "Ref" | "Condition" => tag.to_owned(),
        _ => format!("Fn::{tag}"),
    };
    Node {
        line,
        value: Value::Map(vec![(Key { line, text }, inner)]),
    }
}
