//! The binary `migrate`.

/// The static program's: musl's own is slow when several threads ask it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    #[cfg(target_env = "gnu")]
    keep_memory();
    lockstep::cli::run()
}

/// What becomes free is given back to the system only where it is much: twice what was
/// the largest piece so far. Else each page of a copy asks for its memory anew, and gets
/// it zeroed, which is a sixth of our time. Nothing is written to this piece, so it is
/// none yet; and larger ones do not count.
#[cfg(target_env = "gnu")]
fn keep_memory() {
    const LARGEST: usize = 31 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST)));
}
