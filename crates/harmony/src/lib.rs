//! What the command line needs besides the rooms below it: two bookings side by side, LocalStack, and Docker for `sam local`.

pub mod docker;
pub mod localstack;
pub mod side_by_side;
