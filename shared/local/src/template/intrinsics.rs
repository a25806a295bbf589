//! Intrinsic functions: what `Ref`, `Fn::Sub` and the rest stand for, given parameters, conditions and resources.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::yaml::{Key, Node, Value};
use super::{LOCAL_ACCOUNT_ID, TemplateProblem};

const PARTITION: &str = "aws";
const URL_SUFFIX: &str = "amazonaws.com";

/// Attributes of resources: logical id, then attribute name. The empty name is what `Ref` gives.
pub(super) type Attributes = BTreeMap<String, BTreeMap<String, String>>;

/// Knows all that a template's expressions may refer to, and collects what is wrong.
pub(super) struct Resolver<'template> {
    pub region: String,
    pub stack_name: String,
    /// Values of parameters.
    pub parameters: BTreeMap<String, Node>,
    pub conditions: Option<&'template Node>,
    pub mappings: Option<&'template Node>,
    pub attributes: Attributes,
    problems: RefCell<BTreeSet<TemplateProblem>>,
    /// Conditions being looked at, to notice one that refers to itself.
    conditions_open: RefCell<Vec<String>>,
}

impl<'template> Resolver<'template> {
    pub fn new(region: String, stack_name: String, template: &'template Node) -> Self {
        Self {
            region,
            stack_name,
            parameters: BTreeMap::new(),
            conditions: template.get("Conditions"),
            mappings: template.get("Mappings"),
            attributes: Attributes::new(),
            problems: RefCell::default(),
            conditions_open: RefCell::default(),
        }
    }

    /// Notes a problem; reading goes on so that all are found at once.
    pub fn problem(&self, line: usize, message: impl Into<String>) {
        self.problems.borrow_mut().insert(TemplateProblem {
            line,
            message: message.into(),
        });
    }

    pub fn into_problems(self) -> Vec<TemplateProblem> {
        self.problems.into_inner().into_iter().collect()
    }

    /// The node with every intrinsic replaced. `None` is `AWS::NoValue`: the property is as if it were not there. A problem
    /// gives `None` too, and is noted.
    pub fn resolve(&self, node: &Node) -> Option<Node> {
        match &node.value {
            Value::Null | Value::Scalar { .. } => Some(node.clone()),
            Value::List(items) => Some(Node {
                line: node.line,
                value: Value::List(items.iter().filter_map(|item| self.resolve(item)).collect()),
            }),
            Value::Map(entries) => match entries.as_slice() {
                [(key, argument)] if key.text == "Ref" || key.text.starts_with("Fn::") => self.call(key, argument),
                _ => Some(Node {
                    line: node.line,
                    value: Value::Map(
                        entries
                            .iter()
                            .filter_map(|(key, value)| Some((key.clone(), self.resolve(value)?)))
                            .collect(),
                    ),
                }),
            },
        }
    }

    /// The text that the node stands for.
    pub fn text(&self, node: &Node) -> Option<String> {
        let resolved = self.resolve(node)?;
        match resolved.as_text() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.problem(node.line, "expected text here, or an expression that gives text");
                None
            }
        }
    }

    fn call(&self, key: &Key, argument: &Node) -> Option<Node> {
        let line = key.line;
        match key.text.as_str() {
            "Ref" => self.reference(line, argument.as_text().unwrap_or_default()),
            "Fn::GetAtt" => self.get_attribute(line, argument),
            "Fn::Sub" => self.substitute(line, argument),
            "Fn::Join" => self.join(line, argument),
            "Fn::If" => self.choose(line, argument),
            "Fn::Select" => self.select(line, argument),
            "Fn::Split" => self.split(line, argument),
            "Fn::FindInMap" => self.find_in_map(line, argument),
            "Fn::Equals" | "Fn::And" | "Fn::Or" | "Fn::Not" => {
                let value = self.condition_expression(&Node {
                    line,
                    value: Value::Map(vec![(key.clone(), argument.clone())]),
                });
                Some(Node {
                    line,
                    value: Value::Scalar {
                        text: value.to_string(),
                        quoted: false,
                    },
                })
            }
            other => {
                self.problem(
                    line,
                    format!(
                        "{other} is not supported locally; use Ref, Fn::GetAtt, Fn::Sub, Fn::Join, Fn::If, Fn::Select, Fn::Split \
                         or Fn::FindInMap here, or a parameter with a default"
                    ),
                );
                None
            }
        }
    }

    fn reference(&self, line: usize, name: &str) -> Option<Node> {
        let pseudo = match name {
            "AWS::NoValue" => return None,
            "AWS::Region" => Some(self.region.clone()),
            "AWS::AccountId" => Some(LOCAL_ACCOUNT_ID.to_owned()),
            "AWS::Partition" => Some(PARTITION.to_owned()),
            "AWS::StackName" => Some(self.stack_name.clone()),
            "AWS::URLSuffix" => Some(URL_SUFFIX.to_owned()),
            "AWS::StackId" => Some(format!(
                "arn:{PARTITION}:cloudformation:{}:{LOCAL_ACCOUNT_ID}:stack/{}/local",
                self.region, self.stack_name
            )),
            _ => None,
        };
        if let Some(text) = pseudo {
            return Some(Node::scalar(line, text));
        }
        if let Some(value) = self.parameters.get(name) {
            return Some(value.clone());
        }
        if let Some(text) = self.attributes.get(name).and_then(|attributes| attributes.get("")) {
            return Some(Node::scalar(line, text.clone()));
        }
        self.problem(
            line,
            format!("{name} is neither a parameter nor a resource of this template; correct the name"),
        );
        None
    }

    fn get_attribute(&self, line: usize, argument: &Node) -> Option<Node> {
        let (name, attribute) = match &argument.value {
            Value::Scalar { text, .. } => {
                let (name, attribute) = text.split_once('.')?;
                (name.to_owned(), attribute.to_owned())
            }
            Value::List(parts) => match parts.as_slice() {
                [name, attribute] => (name.as_text()?.to_owned(), self.text(attribute)?),
                _ => {
                    self.problem(line, "Fn::GetAtt takes a resource and an attribute");
                    return None;
                }
            },
            _ => {
                self.problem(line, "Fn::GetAtt takes RESOURCE.ATTRIBUTE");
                return None;
            }
        };
        self.attribute(line, &name, &attribute)
            .map(|text| Node::scalar(line, text))
    }

    fn attribute(&self, line: usize, name: &str, attribute: &str) -> Option<String> {
        let Some(attributes) = self.attributes.get(name) else {
            self.problem(
                line,
                format!("{name} is not a resource of this template; correct the name"),
            );
            return None;
        };
        let found = attributes.get(attribute);
        if found.is_none() {
            let known: Vec<_> = attributes
                .keys()
                .filter(|key| !key.is_empty())
                .map(String::as_str)
                .collect();
            self.problem(
                line,
                format!(
                    "{name} has no attribute {attribute} locally; it has: {}",
                    known.join(", ")
                ),
            );
        }
        found.cloned()
    }

    fn substitute(&self, line: usize, argument: &Node) -> Option<Node> {
        let (pattern, variables) = match &argument.value {
            Value::Scalar { text, .. } => (text.as_str(), None),
            Value::List(parts) => match parts.as_slice() {
                [pattern, variables] => (pattern.as_text().unwrap_or_default(), Some(variables)),
                [pattern] => (pattern.as_text().unwrap_or_default(), None),
                _ => {
                    self.problem(line, "Fn::Sub takes text, or text and a map of variables");
                    return None;
                }
            },
            _ => {
                self.problem(line, "Fn::Sub takes text, or text and a map of variables");
                return None;
            }
        };
        let mut text = String::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some(start) = rest.find("${") {
            text.push_str(&rest[..start]);
            let inside = &rest[start + 2..];
            let Some(end) = inside.find('}') else {
                self.problem(line, "Fn::Sub has a ${ without its }");
                return None;
            };
            let name = inside[..end].trim();
            rest = &inside[end + 1..];
            if let Some(literal) = name.strip_prefix('!') {
                // `${!x}` is how CloudFormation writes a literal `${x}`.
                text.push_str(&format!("${{{literal}}}"));
            } else if let Some(value) = variables.and_then(|variables| variables.get(name)) {
                text.push_str(&self.text(value)?);
            } else if let Some((resource, attribute)) = name.split_once('.') {
                text.push_str(&self.attribute(line, resource, attribute)?);
            } else {
                text.push_str(self.reference(line, name)?.as_text().unwrap_or_default());
            }
        }
        text.push_str(rest);
        Some(Node::scalar(line, text))
    }

    fn join(&self, line: usize, argument: &Node) -> Option<Node> {
        let resolved = self.resolve(argument)?;
        if let Value::List(parts) = &resolved.value
            && let [separator, items] = parts.as_slice()
            && let (Some(separator), Value::List(items)) = (separator.as_text(), &items.value)
        {
            let texts: Vec<&str> = items.iter().filter_map(Node::as_text).collect();
            return Some(Node::scalar(line, texts.join(separator)));
        }
        self.problem(line, "Fn::Join takes a separator and a list");
        None
    }

    fn select(&self, line: usize, argument: &Node) -> Option<Node> {
        let resolved = self.resolve(argument)?;
        if let Value::List(parts) = &resolved.value
            && let [index, items] = parts.as_slice()
            && let (Some(Ok(index)), Value::List(items)) = (index.as_text().map(str::parse::<usize>), &items.value)
            && let Some(item) = items.get(index)
        {
            return Some(item.clone());
        }
        self.problem(line, "Fn::Select takes an index within the list, and the list");
        None
    }

    fn split(&self, line: usize, argument: &Node) -> Option<Node> {
        let resolved = self.resolve(argument)?;
        if let Value::List(parts) = &resolved.value
            && let [separator, text] = parts.as_slice()
            && let (Some(separator), Some(text)) = (separator.as_text(), text.as_text())
        {
            let items = text.split(separator).map(|item| Node::scalar(line, item)).collect();
            return Some(Node {
                line,
                value: Value::List(items),
            });
        }
        self.problem(line, "Fn::Split takes a separator and text");
        None
    }

    fn find_in_map(&self, line: usize, argument: &Node) -> Option<Node> {
        let resolved = self.resolve(argument)?;
        if let Value::List(parts) = &resolved.value
            && let [map, first, second] = parts.as_slice()
            && let (Some(map), Some(first), Some(second)) = (map.as_text(), first.as_text(), second.as_text())
        {
            let found = self.mappings.and_then(|maps| maps.get(map)?.get(first)?.get(second));
            if let Some(found) = found {
                return Some(found.clone());
            }
            self.problem(line, format!("Mappings has no {map}.{first}.{second}"));
            return None;
        }
        self.problem(line, "Fn::FindInMap takes a map and two keys");
        None
    }

    fn choose(&self, line: usize, argument: &Node) -> Option<Node> {
        if let Value::List(parts) = &argument.value
            && let [condition, then, otherwise] = parts.as_slice()
            && let Some(name) = condition.as_text()
        {
            return if self.condition(line, name) {
                self.resolve(then)
            } else {
                self.resolve(otherwise)
            };
        }
        self.problem(line, "Fn::If takes the name of a condition and two values");
        None
    }

    /// Whether the named condition holds.
    pub fn condition(&self, line: usize, name: &str) -> bool {
        if self.conditions_open.borrow().iter().any(|open| open == name) {
            self.problem(line, format!("the condition {name} refers to itself"));
            return false;
        }
        match self.conditions.and_then(|conditions| conditions.get(name)) {
            Some(expression) => {
                self.conditions_open.borrow_mut().push(name.to_owned());
                let holds = self.condition_expression(expression);
                self.conditions_open.borrow_mut().pop();
                holds
            }
            None => {
                self.problem(
                    line,
                    format!("there is no condition {name}; add it under Conditions, or correct the name"),
                );
                false
            }
        }
    }

    fn condition_expression(&self, node: &Node) -> bool {
        let [(key, argument)] = node.entries() else {
            self.problem(
                node.line,
                "a condition is one of Fn::Equals, Fn::And, Fn::Or, Fn::Not, Condition",
            );
            return false;
        };
        let arguments: &[Node] = match &argument.value {
            Value::List(items) => items,
            _ => &[],
        };
        match (key.text.as_str(), arguments) {
            ("Fn::Equals", [left, right]) => {
                let (left, right) = (self.resolve(left), self.resolve(right));
                left.as_ref().and_then(Node::as_text) == right.as_ref().and_then(Node::as_text)
            }
            ("Fn::Not", [inner]) => !self.condition_expression(inner),
            ("Fn::And", [_, ..]) => arguments.iter().all(|inner| self.condition_expression(inner)),
            ("Fn::Or", [_, ..]) => arguments.iter().any(|inner| self.condition_expression(inner)),
            ("Condition", _) => self.condition(key.line, argument.as_text().unwrap_or_default()),
            (other, _) => {
                self.problem(key.line, format!("{other} with these arguments is not a condition"));
                false
            }
        }
    }
}
