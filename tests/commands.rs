//! What a user meets at the command line: the program, as processes.

#![allow(clippy::unwrap_used)]

mod support;

mod api;
mod backtest;
mod backup;
mod cli;
mod conformance;
mod demo;
mod doctor;
mod logs;
mod mistakes;
mod notify;
mod operate;
