//! Decisions: what is eligible, what it costs, what to do. Pure: the same world, the same plan.
//!
//! [`observe`] folds what a poll saw into the state, [`decide`] turns a world into a plan and a
//! report, [`check`] re-derives the limits by separate code, [`reconcile`] agrees with the bill.

mod accrue;
mod act;
pub mod array;
mod array_fate;
pub mod assign;
mod back;
pub mod bid;
pub(crate) mod bring;
pub(crate) mod brought;
pub mod budget;
pub mod check;
pub mod deadline;
pub mod decide;
mod draft;
pub mod eligible;
pub mod forgotten;
pub mod hear;
mod idle;
pub(crate) mod ladder;
pub mod leaks;
pub mod lease;
#[cfg(test)]
mod limit_properties;
mod means;
mod moved;
mod moving;
pub mod observe;
mod outbid;
mod pace;
pub mod price;
pub mod projection;
#[cfg(test)]
mod properties;
pub mod rank;
pub mod reconcile;
mod replica;
pub mod risk;
pub mod runway;
#[cfg(test)]
mod scenarios;
pub mod searches;
pub mod sent;
mod service;
mod start_words;
mod track;
pub(crate) mod transition;
mod view;
#[cfg(test)]
mod watched;
