//! An output that no message carries is read from the ledger.

use farwrite_producer::{
    Outcome, OutcomeAnswer, OutcomeError, OutputError, ReadsFrom, SubmitError,
};

use crate::stage::{LONG, Stage, Worker, raw, within};

/// An output of 2 MB, with its quotes: ten times what the server takes.
const BYTES: usize = 2_000_002;

#[tokio::test]
async fn a_large_output_is_read_where_the_producer_reads() {
    let stage = Stage::new("large").await;
    let worker = Worker::prepare(&stage).await;
    let _working = worker.begin().await;
    let reader = worker.reader().await;
    let body = "{\"bytes\": 2000000}";
    let call = reader.call_raw(raw("bulk", None, body)).timeout(LONG);
    let committed = within(call.submit()).await.unwrap();
    assert_eq!(committed.output.get().len(), BYTES);
    let answer = within(reader.outcome(committed.id)).await.unwrap();
    let OutcomeAnswer::Known(reply) = answer else { panic!("{answer:?}") };
    let Outcome::Applied { output } = &reply.outcome else { panic!("not whole") };
    assert_eq!(output.get().len(), BYTES);

    // Read from the primary.
    let primary =
        stage.builder().reads(ReadsFrom::primary(worker.primary_url())).connect().await.unwrap();
    let call = primary.call_raw(raw("bulk", None, body)).timeout(LONG);
    assert_eq!(within(call.write()).await.unwrap().output.get().len(), BYTES);

    // Who reads nothing is told where it is.
    let blind = stage.producer().await;
    let error = within(blind.call_raw(raw("bulk", None, body)).timeout(LONG).submit()).await;
    let error = error.unwrap_err();
    let SubmitError::OutputNotRead { id, output_bytes, bookmark, cause } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*output_bytes, BYTES as u64);
    assert!(matches!(cause, OutputError::NoReads(_)), "{cause:?}");
    assert!(error.to_string().contains(&format!("farwrite.outcome_of('{id}')")), "{error}");
    within(reader.wait_within(bookmark, LONG)).await.unwrap();
    let error = within(blind.outcome(*id)).await.unwrap_err();
    assert!(matches!(error, OutcomeError::OutputNotRead { .. }), "{error:?}");
    let small = blind.call_raw(raw("bulk", None, "{\"bytes\": 100000}")).timeout(LONG);
    assert_eq!(within(small.submit()).await.unwrap().output.get().len(), 100_002);
}
