//! What is written, held against what is so: documents, policies, and the shape of the house.

#![allow(clippy::unwrap_used)]

mod policies;
mod tidy;
