//! The HTTP contract, tested on the router without a socket (but for `socket` and `stream`) and without weights: a test
//! engine stands for the model and does what the request's language tells it (answer, wait, fail, panic).

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod access;
mod audio_store;
mod bad_input;
mod batching;
mod catalogue;
mod files;
mod metrics;
mod openai;
mod openapi;
mod redis_imitation;
mod reload;
mod routes;
mod shared_cache;
mod socket;
mod stream;
mod support;
mod text;
mod traces;
mod under_load;
