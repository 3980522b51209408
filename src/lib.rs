//! haggle rents GPUs on the Vast.ai marketplace as cheaply as a job allows.

pub mod arena;
pub mod backtest;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod logbook;
pub mod market;
pub mod marketplace;
mod net;
pub mod notify;
pub mod policy;
pub mod ports;
pub mod runner;
pub mod simulate;
pub mod storage;
pub mod store;
pub mod types;
mod view;
pub mod web;
