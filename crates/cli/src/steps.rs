//! The steps of a round, planned or carried out, one line each.

use packetboat_engine::replica::{Action, Direction, PlannedStep};
use serde_json::{Map, Value};

use crate::json::insert_path;

/// For people: which way, what, where, and why.
pub(crate) fn text(step: &PlannedStep) -> String {
    let place = match &step.to {
        Some(to) => format!("{} -> {to}", step.path),
        None => step.path.to_string(),
    };
    format!("{:<5} {:<10} {place}  ({})", direction(step.direction), action(step.action), step.cause)
}

/// For scripts.
pub(crate) fn to_json(step: &PlannedStep) -> Value {
    let mut object = Map::new();
    object.insert("direction".to_owned(), direction(step.direction).into());
    object.insert("action".to_owned(), action(step.action).into());
    insert_path(&mut object, "path", step.path.as_bytes());
    if let Some(to) = &step.to {
        insert_path(&mut object, "to", to.as_bytes());
    }
    object.insert("cause".to_owned(), step.cause.as_str().into());
    Value::Object(object)
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
        Direction::Stay => "stay",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Edit => "edit",
        Action::Move => "move",
        Action::Attributes => "attributes",
        Action::Delete => "delete",
        Action::Ignore => "ignore",
        Action::Skip => "skip",
    }
}
