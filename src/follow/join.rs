//! Several futures at the same time, on one task.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Runs all at the same time and waits for all.
pub(crate) async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures
        .into_iter()
        .map(|f| (Box::pin(f), None))
        .collect::<Vec<(Pin<Box<F>>, Option<F::Output>)>>();
    poll_fn(move |cx| {
        let mut all = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => all = false,
                }
            }
        }
        if all {
            let outputs = running.iter_mut().filter_map(|(_, o)| o.take());
            Poll::Ready(outputs.collect())
        } else {
            Poll::Pending
        }
    })
    .await
}
