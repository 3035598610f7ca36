//! The program as its users see it: what it prints, where, and how it ends. One binary of tests.
//!
//! - `world`: a table of its own for each test, and transcripts, which are compared with approved ones;
//! - `entity`, `resource`, `system`, `namespace`, `audit`, `usage`, `table`: the commands, group by group;
//! - `limits`: manifests; `functions`: a server with a table and a function that is not to be trusted;
//! - `page`: the sample outputs of the reference page, to the letter;
//! - `values`: names and limits that are wrong;
//! - `connect`: tables that are not there, cannot be opened or do not answer;
//! - `clock`: a machine whose clock is wrong;
//! - `stack`: stacks in AWS, as far as no server is needed; the rest is in `interop/test_stack.py`; `stack_again`: stacks that
//!   exist, on the local endpoint;
//! - `concurrency`: concurrency limits and places in flight;
//! - `serve`: the server, as far as the command decides;
//! - `acquire`: taking tokens, with and without a command to run;
//! - `signals`: what the program and its command do about signals;
//! - `docs`: the examples of the README and the guide;
//! - `loadtest`, `distributed`: load from this machine, from one process and from several; `loadtest_page`: its page;
//!   `loadtest_lambda`: the command and a function; `loadtest_function`: a function on the local endpoint;
//!   `loadtest_stack`: generators in AWS, on a local endpoint; `loadtest_fargate`: a master that ECS would run;
//! - `replay`: recorded traffic against manifests;
//! - `local`: the commands around the local endpoint;
//! - `help`: help, wrong command lines, completions, manual pages;
//! - `streams`: closed output, colours;
//! - `big`: deletions of very many records that are killed on the way.
//!
//! Set `ZAE_LIMITER_TEST_ENDPOINT` to the URL of another implementation of DynamoDB to run them on that; see
//! `world`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

mod access;
mod acquire;
mod audit;
mod bad_values;
mod big;
mod clock;
mod concurrency;
mod connect;
mod distributed;
mod docs;
mod entity;
mod functions;
mod help;
mod limits;
mod loadtest;
mod loadtest_fargate;
mod loadtest_function;
mod loadtest_lambda;
mod loadtest_page;
mod loadtest_stack;
mod local;
mod namespace;
mod operations;
mod page;
mod replay;
mod resource;
mod serve;
mod signals;
mod stack;
mod stack_again;
mod streams;
mod system;
mod table;
mod usage;
mod values;
mod world;
