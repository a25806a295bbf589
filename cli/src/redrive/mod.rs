//! `usher redrive`: what was given up runs again.

mod assess;
mod batches;
mod failure_record;
mod fetch;
mod source;
mod standing;
mod user;

use anyhow::Result;

use crate::Verdict;
use crate::args::RedriveOptions;
use crate::environment;

/// Runs the command.
///
/// # Errors
/// When something can't be read, put or written. What was done before is said.
pub async fn run(options: RedriveOptions) -> Result<Verdict> {
    match options.user.clone() {
        Some(user) => user::run(options, &user).await,
        None => batches::run(options).await,
    }
}

/// The environment, with the endpoints of the command line in place of its own.
fn endpoints_of(options: &RedriveOptions) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
    let (all, dynamodb) = (options.endpoint_url.clone(), options.dynamodb_endpoint_url.clone());
    move |name: &str| match name {
        "AWS_ENDPOINT_URL_DYNAMODB" if dynamodb.is_some() => dynamodb.clone(),
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" if all.is_some() || dynamodb.is_some() => None,
        name if name.starts_with("AWS_ENDPOINT_URL") && all.is_some() => all.clone(),
        _ => environment::variable(name),
    }
}
