//! How far behind the worker is.

use std::time::Duration;

use farwrite_producer::{LagError, Pending};

use crate::stage::{LONG, Stage, Worker, raw, within};

#[tokio::test]
async fn the_lag_grows_while_a_command_holds_the_others_up_and_goes_back_to_nothing() {
    let stage = Stage::new("lag").await;
    let worker = Worker::prepare(&stage).await;
    let producer = stage.producer().await;
    let nobody = within(producer.lag_within(Duration::from_millis(300))).await;
    assert!(matches!(nobody, Err(LagError::NoWorker)), "{nobody:?}");
    let _working = worker.begin().await;
    let lag = within(producer.lag()).await.unwrap();
    assert_eq!((lag.commands, lag.seconds), (0, 0.0));

    let nap = producer.call_raw(raw("nap", Some("k"), "{\"seconds\": 5}"));
    within(nap.publish()).await.unwrap();
    for n in 1..=4 {
        let call = producer.call_raw(raw("see", Some("k"), &format!("{{\"n\": {n}}}")));
        within(call.publish()).await.unwrap();
    }
    let mut last = lag;
    within(async {
        while last.commands < 5 || last.seconds < 2.0 {
            let lag = producer.lag().await.unwrap();
            assert!(lag.commands <= 5 && (lag.commands > 0 || last.commands == 0), "{lag:?}");
            last = lag;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Measured once a second, and then at once.
        while last.commands > 0 {
            last = producer.lag().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(last.seconds, 0.0);
    // What is parked is not behind.
    let call = producer.call_raw(raw("see", Some("k"), "{\"n\": 9}")).delay(LONG);
    within(call.publish()).await.unwrap();
    within(async {
        while producer.lag().await.unwrap().commands > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(producer.pending(), Pending::default());
}
