//! The key that signs the webhook's requests. In AWS it comes from a secret; here there is none.

use std::collections::BTreeMap;

use usher_local::Template;

/// The variables of a function that sends to a webhook.
const URL_VARIABLE: &str = "USHER_WEBHOOK_URL";
/// Where such a function finds the key. The caller's environment may hold it under the same name.
pub const SECRET_VARIABLE: &str = "USHER_WEBHOOK_SECRET";
/// What a key begins with, as the Standard Webhooks specification has it.
const SECRET_PREFIX: &str = "whsec_";
/// Length of a key that is made here.
const SECRET_BYTES: usize = 24;
/// How a template refers to a secret of AWS, which can't be read here.
const AWS_REFERENCE: &str = "{{resolve:";

/// What signs the webhook's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// The key for each function that needs it, by logical id.
    pub by_function: BTreeMap<String, String>,
    /// The key, where nobody gave one and it was made here.
    pub made: Option<String>,
}

impl Signing {
    /// The keys of the functions that have a webhook's URL: `given`, else the template's own, else one that is made here.
    /// Without a webhook there is none, because a function refuses a key that signs nothing.
    pub fn of(template: &Template, given: Option<String>) -> Signing {
        let given = given.filter(|secret| !secret.is_empty());
        let mut signing = Signing::default();
        for function in &template.functions {
            let value = |name: &str| function.environment.get(name).map_or("", String::as_str);
            if value(URL_VARIABLE).is_empty() || !function.environment.contains_key(SECRET_VARIABLE) {
                continue;
            }
            let own = value(SECRET_VARIABLE);
            let secret = match &given {
                Some(secret) => secret.clone(),
                None if !own.is_empty() && !own.contains(AWS_REFERENCE) => continue,
                None => signing.made.get_or_insert_with(random_secret).clone(),
            };
            signing.by_function.insert(function.logical_id.clone(), secret);
        }
        signing
    }

    /// What can be pasted into a shell to know the key that was made; nothing if there is none.
    pub fn exports(&self) -> String {
        self.made.as_ref().map_or_else(String::new, |secret| {
            format!(
                "# made for this run, to sign what goes to the webhook: verify it with this; set it, and the next run signs with it too\n\
                 export {SECRET_VARIABLE}={secret}\n"
            )
        })
    }
}

/// It keeps nothing safe that leaves this machine, so no better randomness is needed.
fn random_secret() -> String {
    let mut key = [0; SECRET_BYTES];
    fastrand::fill(&mut key);
    format!("{SECRET_PREFIX}{}", base64_simd::STANDARD.encode_to_string(key))
}

#[cfg(test)]
mod tests {
    use usher_local::TemplateOptions;

    use super::*;

    #[test]
    fn a_webhook_is_signed_with_the_key_that_is_given_else_with_one_that_is_made() {
        let template = |url: &str, arn: &str| {
            let options = TemplateOptions {
                parameters: [("WebhookUrl", url), ("WebhookSecretArn", arn)]
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                ..TemplateOptions::default()
            };
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml");
            Template::read(std::path::Path::new(file), &options).expect("it is fine")
        };
        let (url, arn) = (
            "http://127.0.0.1:8000/hook",
            "arn:aws:secretsmanager:us-east-1:000000000000:secret:x",
        );
        let given = || Some("whsec_given".to_owned());
        for (url, arn, given, signed, is_made) in [
            ("", "", None, false, false),
            ("", "", given(), false, false),
            (url, "", given(), true, false),
            (url, arn, given(), true, false),
            (url, "", None, true, true),
            (url, arn, None, true, true),
            (url, "", Some(String::new()), true, true),
        ] {
            let case = format!("{url} {arn} {given:?}");
            let signing = Signing::of(&template(url, arn), given.clone());
            assert_eq!(signing.by_function.contains_key("TriggerDelivery"), signed, "{case}");
            assert_eq!(signing.made.is_some(), is_made, "{case}");
            assert_eq!(
                signing.exports().contains("export USHER_WEBHOOK_SECRET=whsec_"),
                is_made,
                "{case}"
            );
            for secret in signing.by_function.values() {
                assert_eq!(Some(secret), signing.made.as_ref().or(given.as_ref()), "{case}");
            }
        }
        assert_ne!(random_secret(), random_secret());
        assert_eq!(random_secret().len(), SECRET_PREFIX.len() + SECRET_BYTES / 3 * 4);
    }
}
