//! The binary `migrate`.

/// The static program's: musl's own is slow when several threads ask it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    lockstep::cli::run()
}
