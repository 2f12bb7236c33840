//! `migrate serve`: health, metrics and where everything stands, over HTTP.

use crate::cli::args::{self, Global};
use crate::cli::config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, stop_on_signals};
use crate::engine::StopReason;
use crate::serve::control::{TOKEN_MIN, Token};
use crate::serve::{Settings, serve};
use serde_json::json;
use tokio::net::TcpListener;

/// Where the token may be, besides in a file.
const TOKEN: &str = "MIGRATE_CONTROL_TOKEN";

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Serve, output: &Output) -> Result<Exit, Failure> {
    let config = project::configure(global)?;
    config.stores()?;
    let (set, _) = project::read_unfilled(&config)?;
    let control = token(args)?;
    let stop = stop_on_signals(None)?;
    let listen = &args.listen;
    let failed = |error: std::io::Error| {
        let message = format!("cannot listen on {listen}: {error}");
        Failure::new(Exit::Usage, "SERVE_ADDRESS", message)
            .next("name another address with --listen ADDRESS:PORT; port 0 takes one that is free")
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    output.object("serving", &json!({ "address": address.to_string() }));
    output.remark(&format!("listening on http://{address}"));
    if !address.ip().is_loopback() {
        output.remark(
            "whoever reaches this address can read the migrations, their statements and the audit log: let only a trusted network through",
        );
    }
    let settings = Settings { control, interval: args.interval };
    let reason = Box::pin(serve(listener, &config, &set, settings, &stop)).await;
    Ok(match reason {
        StopReason::Interrupted => Exit::Interrupted,
        StopReason::Terminated | StopReason::TimedOut => Exit::Terminated,
    })
}

/// The token, if somebody with it may steer.
fn token(args: &args::Serve) -> Result<Option<Token>, Failure> {
    let failed = |message: String| {
        Failure::new(Exit::Usage, "SERVE_TOKEN", message).next(format!(
            "give a token of {TOKEN_MIN} letters or more in a file (--control-token-file FILE) or in {TOKEN}; `openssl rand -hex 32` makes one"
        ))
    };
    if !args.allow_control {
        return match &args.control_token_file {
            Some(_) => {
                Err(failed("--control-token-file is of no use without --allow-control".to_owned()))
            }
            None => Ok(None),
        };
    }
    let text = match &args.control_token_file {
        Some(file) => std::fs::read_to_string(file).map_err(|error| {
            failed(format!("cannot read the token from {}: {error}", file.display()))
        })?,
        None => config::variable(TOKEN)
            .ok_or_else(|| failed("--allow-control needs a token".to_owned()))?,
    };
    let token = Token::new(text.trim());
    token.map(Some).ok_or_else(|| failed("the token is too short: it can be guessed".to_owned()))
}
