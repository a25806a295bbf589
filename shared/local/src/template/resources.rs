//! x
use super::{Template, TemplateOptions, TemplateProblems};
pub(super) fn read(_s: &str, _t: &str, _o: &TemplateOptions) -> Result<Template, TemplateProblems> {
    unimplemented!()
}
