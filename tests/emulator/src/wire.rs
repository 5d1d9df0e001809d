//! A thin client of Postgres's extended protocol.
//!
//! `POST /sql` needs results in text format *with* type OIDs, table OIDs and modifiers, which
//! ready-made clients do not give.
//!
//! Source: PostgreSQL, chapter 54, "Frontend/Backend Protocol".

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the protocol has thirty messages, and each place expects a few"
)]

use std::collections::HashMap;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Something went wrong.
#[derive(Debug, Clone)]
pub(crate) enum PgError {
    /// Postgres answered with an error; its fields by their letters.
    Server(HashMap<u8, String>),
    /// The connection failed.
    Connection(String),
}

impl PgError {
    /// Returns a field of the error.
    pub(crate) fn field(&self, letter: u8) -> Option<&str> {
        match self {
            Self::Server(fields) => fields.get(&letter).map(String::as_str),
            Self::Connection(_) => None,
        }
    }

    /// Returns the message.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Server(_) => self.field(b'M').unwrap_or_default().to_owned(),
            Self::Connection(text) => text.clone(),
        }
    }
}

impl std::fmt::Display for PgError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for PgError {}

impl From<std::io::Error> for PgError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

/// A column of a result.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) table: u32,
    pub(crate) column: i16,
    pub(crate) type_oid: u32,
    pub(crate) type_size: i16,
    pub(crate) modifier: i32,
}

/// The result of one statement.
#[derive(Default)]
pub(crate) struct QueryResult {
    pub(crate) fields: Vec<Field>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) tag: String,
}

/// A connection to Postgres.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    canceller: Option<Canceller>,
}

/// What ends the statement of a connection from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canceller {
    port: u16,
    process: i32,
    key: i32,
}

impl Canceller {
    /// Asks Postgres to end what the connection is doing; it may be done by then.
    pub(crate) async fn cancel(self) -> Result<(), PgError> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut out = BytesMut::new();
        frontend::cancel_request(self.process, self.key, &mut out);
        stream.write_all(&out).await?;
        // Postgres closes the connection once it has sent the signal.
        let _ = stream.read(&mut [0]).await?;
        Ok(())
    }
}

impl Connection {
    /// Connects and logs in.
    pub(crate) async fn connect(
        port: u16,
        user: &str,
        password: &str,
        database: &str,
        more: &[(String, String)],
    ) -> Result<Self, PgError> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let mut connection =
            Self { stream, buffer: BytesMut::with_capacity(16_384), canceller: None };
        let mut out = BytesMut::new();
        let parameters = [("user", user), ("database", database), ("client_encoding", "UTF8")];
        let parameters = parameters
            .into_iter()
            .chain(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        frontend::startup_message(parameters, &mut out)?;
        connection.stream.write_all(&out).await?;
        connection.log_in(password).await?;
        loop {
            match connection.receive().await? {
                Message::ReadyForQuery(_) => return Ok(connection),
                Message::BackendKeyData(body) => {
                    connection.canceller = Some(Canceller {
                        port,
                        process: body.process_id(),
                        key: body.secret_key(),
                    });
                }
                Message::ErrorResponse(body) => return Err(server_error(body.fields())),
                _ => {}
            }
        }
    }

    /// Returns what ends a statement of this connection.
    pub(crate) fn canceller(&self) -> Option<Canceller> {
        self.canceller
    }

    async fn log_in(&mut self, password: &str) -> Result<(), PgError> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let mut out = BytesMut::new();
            match self.receive().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password.as_bytes(), &mut out)?;
                }
                Message::AuthenticationSasl(_) => {
                    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => scram.finish(body.data())?,
                Message::ErrorResponse(body) => return Err(server_error(body.fields())),
                _ => {
                    return Err(PgError::Connection(
                        "unexpected message while logging in".to_owned(),
                    ));
                }
            }
            self.stream.write_all(&out).await?;
        }
    }

    async fn receive(&mut self) -> Result<Message, PgError> {
        loop {
            if let Some(message) = Message::parse(&mut self.buffer)? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(PgError::Connection("connection closed".to_owned()));
            }
        }
    }

    /// Runs one statement with parameters, all of them as text.
    pub(crate) async fn query(
        &mut self,
        sql: &str,
        parameters: &[Option<String>],
    ) -> Result<QueryResult, PgError> {
        let mut out = BytesMut::new();
        frontend::parse("", sql, [], &mut out)?;
        let values = parameters.iter();
        frontend::bind(
            "",
            "",
            [],
            values,
            |value, buffer| match value {
                Some(text) => {
                    buffer.extend_from_slice(text.as_bytes());
                    Ok(IsNull::No)
                }
                None => Ok(IsNull::Yes),
            },
            [0],
            &mut out,
        )
        .map_err(|_| PgError::Connection("the parameters could not be encoded".to_owned()))?;
        frontend::describe(b'P', "", &mut out)?;
        frontend::execute("", 0, &mut out)?;
        frontend::sync(&mut out);
        self.stream.write_all(&out).await?;
        self.collect().await.map(|mut results| results.pop().unwrap_or_default())
    }

    /// Runs a script of statements.
    pub(crate) async fn script(&mut self, sql: &str) -> Result<Vec<QueryResult>, PgError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out).await?;
        self.collect().await
    }

    /// Returns the first value of the first row.
    pub(crate) async fn value(&mut self, sql: &str) -> Result<String, PgError> {
        let result = self.query(sql, &[]).await?;
        let value = result.rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
        value.ok_or_else(|| PgError::Connection(format!("{sql}: no value")))
    }

    async fn collect(&mut self) -> Result<Vec<QueryResult>, PgError> {
        let mut results = Vec::new();
        let mut result = QueryResult::default();
        let mut failure = None;
        loop {
            match self.receive().await? {
                Message::RowDescription(body) => {
                    result.fields = body
                        .fields()
                        .map(|field| {
                            Ok(Field {
                                name: field.name().to_owned(),
                                table: field.table_oid(),
                                column: field.column_id(),
                                type_oid: field.type_oid(),
                                type_size: field.type_size(),
                                modifier: field.type_modifier(),
                            })
                        })
                        .collect()?;
                }
                Message::DataRow(body) => {
                    let buffer = body.buffer();
                    let row = body
                        .ranges()
                        .map(|range| {
                            Ok(range
                                .map(|range| String::from_utf8_lossy(&buffer[range]).into_owned()))
                        })
                        .collect()?;
                    result.rows.push(row);
                }
                Message::CommandComplete(body) => {
                    body.tag()?.clone_into(&mut result.tag);
                    results.push(std::mem::take(&mut result));
                }
                Message::EmptyQueryResponse => results.push(std::mem::take(&mut result)),
                Message::ErrorResponse(body) => {
                    failure = Some(server_error(body.fields()));
                    // A fatal error is the last message of a connection.
                    if failure.as_ref().and_then(|error| error.field(b'V')) == Some("FATAL") {
                        break;
                    }
                }
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        failure.map_or(Ok(results), Err)
    }
}

fn server_error(fields: ErrorFields<'_>) -> PgError {
    let collected: Result<Vec<(u8, String)>, _> = fields
        .map(|field| Ok((field.type_(), String::from_utf8_lossy(field.value_bytes()).into_owned())))
        .collect();
    PgError::Server(collected.unwrap_or_default().into_iter().collect())
}
