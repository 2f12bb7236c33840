//! The binary `migrate`.

/// The static program's: musl's own is slow when several threads ask it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let code = lockstep::cli::run().await;
    // Not by returning: that takes the runtime away from the MongoDB driver while
    // it still says goodbye to the server, and then it panics.
    std::process::exit(code.into())
}
