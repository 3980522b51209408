//! What is written, held against what is so: documents, policies, and the shape of the house.

mod policies;
mod tidy;
