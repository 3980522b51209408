//! Which form of URL works, family by family: remembered, learnt from reads, unlearnt.
//!
//! A URL of the new form is safe to try: where the gateway does not know it, it answers with its
//! own 404 and nothing happens. One of the old form is not: a gateway that knows only the new form
//! takes the placeholder's name for the id. So the old form counts only with proof, a fresh read by
//! id that brought the very thing that was asked for, after the new form met the gateway's own 404.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::routes::{Family, Form};
use crate::types::time::Mono;

/// How long a proof of the old form holds. The gateway's definitions are changed by people; ten
/// minutes bound the harm without a second request for every mutation.
const PROOF_LASTS: Duration = Duration::from_mins(10);

#[derive(Clone, Copy, Default)]
struct Known {
    form: Option<Form>,
    /// When the form was last proven in this process.
    proven: Option<Mono>,
}

/// What is known of the forms.
#[derive(Default)]
pub(crate) struct Dialect {
    known: Mutex<BTreeMap<Family, Known>>,
    news: Mutex<Vec<(String, Option<String>)>>,
}

impl Dialect {
    /// Starts from what was remembered. A word that is not understood is passed over.
    pub(crate) fn new(remembered: &BTreeMap<String, String>) -> Self {
        let known = Family::ALL
            .into_iter()
            .filter_map(|family| {
                let form = Form::from_word(remembered.get(family.key())?)?;
                let known = Known {
                    form: Some(form),
                    proven: None,
                };
                Some((family, known))
            })
            .collect();
        Self {
            known: Mutex::new(known),
            news: Mutex::default(),
        }
    }

    /// The form that was learnt.
    pub(crate) fn known(&self, family: Family) -> Option<Form> {
        self.get(family).form
    }

    /// The form in which a mutation may be sent without asking anything first.
    pub(crate) fn for_mutation(&self, family: Family, now: Mono) -> Option<Form> {
        let known = self.get(family);
        let fresh = known.proven.is_some_and(|at| now.since(at) < PROOF_LASTS);
        match known.form? {
            Form::New => Some(Form::New),
            Form::Old => fresh.then_some(Form::Old),
        }
    }

    /// A form was proven.
    pub(crate) fn learn(&self, family: Family, form: Form, now: Mono) {
        let before = self.get(family).form;
        self.set(
            family,
            Known {
                form: Some(form),
                proven: Some(now),
            },
        );
        if before != Some(form) {
            self.note(family, Some(form));
        }
    }

    /// The known form stopped working.
    pub(crate) fn forget(&self, family: Family) {
        if self.get(family).form.is_some() {
            self.set(family, Known::default());
            self.note(family, None);
        }
    }

    /// What was learnt and unlearnt since the last call.
    pub(crate) fn news(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, family: Family) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&family).copied().unwrap_or_default()
    }

    fn set(&self, family: Family, value: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(family, value);
    }

    fn note(&self, family: Family, form: Option<Form>) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.push((
            family.key().to_owned(),
            form.map(|form| form.as_str().to_owned()),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_form_needs_fresh_proof() {
        let key = Family::Instances.key().to_owned();
        let dialect = Dialect::new(&BTreeMap::from([(key.clone(), "old".to_owned())]));
        assert_eq!(dialect.known(Family::Instances), Some(Form::Old));
        assert_eq!(dialect.for_mutation(Family::Instances, Mono(0)), None);
        dialect.learn(Family::Instances, Form::Old, Mono(0));
        assert_eq!(
            dialect.for_mutation(Family::Instances, Mono(1000)),
            Some(Form::Old)
        );
        assert_eq!(dialect.for_mutation(Family::Instances, Mono(600_000)), None);
        assert_eq!(dialect.news(), vec![], "it was known before");
        dialect.forget(Family::Instances);
        dialect.learn(Family::Instances, Form::New, Mono(0));
        assert_eq!(
            dialect.news(),
            vec![(key.clone(), None), (key, Some("new".to_owned()))]
        );
        assert_eq!(
            dialect.for_mutation(Family::Instances, Mono(9_000_000)),
            Some(Form::New)
        );
    }
}
