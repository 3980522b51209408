//! `haggle schema`: the JSON Schema of a policy, for editors.

use super::context::Context;
use super::failure::{Done, Exit};
use crate::policy;

pub(crate) fn run(context: &Context) -> Done {
    context.output.document(&policy::schema())?;
    Ok(Exit::Success)
}
