//! How a backtest is written: a table, one JSON document or a sheet to stdout, and a page into a file.

use std::fs;

use serde::Serialize;

use super::super::context::Context;
use super::super::failure::{Failure, OrFail};
use super::BacktestArgs;

/// The forms of a result, each made only where it is asked for.
pub(super) struct Forms<'a> {
    pub(super) text: &'a dyn Fn() -> String,
    pub(super) csv: &'a dyn Fn() -> Result<Vec<u8>, Failure>,
    pub(super) page: &'a dyn Fn() -> String,
}

/// Writes a result in the forms that are asked for.
pub(super) fn show(
    context: &Context,
    args: &BacktestArgs,
    document: &impl Serialize,
    forms: &Forms<'_>,
) -> Result<(), Failure> {
    if let Some(path) = &args.html {
        fs::write(path, (forms.page)()).or_mendable(format!("cannot write {}", path.display()))?;
    }
    if args.csv {
        context.output.bytes(&(forms.csv)()?)
    } else {
        context.output.show(document, forms.text)
    }
}

/// Refuses forms that exclude each other, before anything is run.
pub(super) fn require_one(context: &Context, args: &BacktestArgs) -> Result<(), Failure> {
    if args.csv && context.global.json {
        return Err(Failure::mendable(
            "--csv and --json are both for stdout; take one",
        ));
    }
    Ok(())
}
