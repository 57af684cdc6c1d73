//! The example's routes: every user sees their own notes, in whichever region the next request
//! arrives.

use std::borrow::Cow;

use axum::{
    Extension, Json, Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use farwrite_producer::{
    Command, CommandId, NoReads, Producer, SubmitError, WriteError,
    web::{BookmarkLayer, Session},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// A note to be added. The author is its key: one author's notes are added in order.
#[derive(Serialize)]
struct AddNote {
    #[serde(skip)]
    author: String,
    text: String,
}

impl Command for AddNote {
    const NAME: &'static str = "note.add";
    type Output = Uuid;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.author.as_str().into())
    }
}

/// What a user sends. With an id of their own they may send it again: it is added once.
#[derive(Deserialize)]
struct NewNote {
    text: String,
    id: Option<CommandId>,
}

/// The routes, behind a layer that waits for each user's bookmark.
pub(crate) fn router(layer: BookmarkLayer) -> Router {
    Router::new().route("/{author}/notes", get(list).post(add)).layer(layer)
}

/// A layer for trying it out: without TLS a browser keeps no `Secure` cookie.
pub(crate) fn layer(producer: Producer) -> Result<BookmarkLayer, NoReads> {
    Ok(BookmarkLayer::new(producer)?.secure(false))
}

async fn list(Extension(session): Extension<Session>, Path(author): Path<String>) -> Response {
    let notes: Result<Vec<(Uuid, String)>, _> =
        sqlx::query_as("SELECT id, text FROM notes WHERE author = $1 ORDER BY written, id")
            .bind(author)
            .fetch_all(session.pool())
            .await;
    match notes {
        Ok(notes) => {
            let notes: Vec<_> =
                notes.into_iter().map(|(id, text)| json!({ "id": id, "text": text })).collect();
            Json(json!({ "from": session.from().as_str(), "notes": notes })).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the notes cannot be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn add(
    Extension(session): Extension<Session>,
    Path(author): Path<String>,
    Json(NewNote { text, id }): Json<NewNote>,
) -> Response {
    let id = id.unwrap_or_else(CommandId::now);
    let command = AddNote { author, text };
    match session.producer().call(&command).id(id).write().await {
        Ok(visible) => {
            session.wrote(&visible);
            (StatusCode::CREATED, Json(json!({ "id": visible.output }))).into_response()
        }
        // Committed, and not visible here yet: the next request waits for it.
        Err(WriteError::NotVisible { committed, .. }) => {
            session.committed(&committed);
            (StatusCode::CREATED, Json(json!({ "id": committed.output }))).into_response()
        }
        Err(WriteError::Submit(SubmitError::Rejected { rejection, .. })) => {
            let why = json!({ "code": rejection.code, "message": rejection.message });
            (StatusCode::UNPROCESSABLE_ENTITY, Json(why)).into_response()
        }
        // The id is the user's to try again with.
        Err(error) => {
            let why = json!({ "id": id, "error": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}
