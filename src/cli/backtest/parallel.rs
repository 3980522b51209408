//! Tasks that are independent of each other, on all threads, with their results in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::failure::Failure;
use super::super::output::Output;

/// What each task came to, in the order of the tasks, whichever thread took it.
///
/// # Errors
/// Why the first one that failed did.
pub(super) fn in_parallel<T: Sync, R: Send>(
    output: Output,
    tasks: &[T],
    threads: usize,
    one: &(dyn Fn(&T) -> Result<R, String> + Sync),
) -> Result<Vec<R>, Failure> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<R, String>>>> =
        Mutex::new(tasks.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, tasks.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(task) = tasks.get(at) else { break };
                    let result = one(task);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done[at] = Some(result);
                    output.progress(&format!("{} of {} runs begun", at + 1, tasks.len()));
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter()
        .map(|result| match result {
            Some(Ok(result)) => Ok(result),
            Some(Err(why)) => Err(Failure::world(why)),
            None => Err(Failure::world("a run was not made")),
        })
        .collect()
}
