//! Okyeame's server and command line: the core's [`Recognizer`](okyeame_core::Recognizer) behind HTTP, on
//! one machine.
//!
//! Read in this order: `engine` (what is needed of a model), `inference_worker`, `queue` and `model_loading` (the model on
//! its thread), `connections`, `access` and `routes` (what a client sees), `error` (what it sees when something goes wrong), `cli`.
//! Not for another process to build on: what is public here is what the tests and the binary need.

pub mod access;
mod answer_cache;
mod audio_store;
pub mod cli;
pub mod config;
mod connections;
mod cores;
pub mod engine;
mod error;
mod inference_worker;
mod logging;
mod memory;
mod metrics;
pub mod model_choice;
mod model_content;
mod model_loading;
mod queue;
mod report;
mod request_id;
mod routes;
pub mod shared_cache;
mod state;
mod stats;
pub mod tls;
pub mod traces;

pub use connections::serve;
pub use routes::app;
pub use state::Server;
