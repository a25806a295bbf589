//! Work that is spread over threads, whose results come in order whoever did it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Does pieces of work 0 to `count`, on `threads` threads of which this is one, and gives their results in order.
pub fn in_parallel<T: Send>(threads: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if threads.min(count) <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let some = || -> Vec<(usize, T)> {
        let pieces = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|piece| *piece < count));
        pieces.map(|piece| (piece, work(piece))).collect()
    };
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(some)).collect();
        let mut results = some();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                // What panicked there panics here.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(piece, _)| *piece);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        for threads in [0, 1, 2, 8] {
            for count in [0, 1, 7, 1000] {
                let expected: Vec<usize> = (0..count).map(|piece| piece * piece).collect();
                assert_eq!(in_parallel(threads, count, |piece| piece * piece), expected);
            }
        }
    }
}
