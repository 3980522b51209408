//! What a user meets at the command line: the program, as processes.

mod support;

mod api;
mod backtest;
mod backup;
mod cli;
mod conformance;
mod demo;
mod logs;
mod mistakes;
mod notify;
mod operate;
