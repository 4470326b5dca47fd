//! One way to speak to both databases: statements with their parameters, sessions, transactions.
//!
//! Futures are boxed here: sqlx's own don't tell, inside of others, that they may change threads.

use std::borrow::Cow;

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{
    Arguments, Connection as _, Encode, Executor, FromRow, PgConnection, Postgres, Sqlite,
    SqliteConnection, Type,
};

use super::dialect::Dialect;

/// A parameter. All columns are texts or integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bind {
    Text(Option<String>),
    Integer(Option<i64>),
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Bind {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Bind {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

/// A statement with its parameters, `$1` and so on.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    text: Cow<'static, str>,
    binds: Vec<Bind>,
}

/// Begins a statement.
pub(crate) fn sql(text: impl Into<Cow<'static, str>>) -> Statement {
    Statement { text: text.into(), binds: Vec::new() }
}

impl Statement {
    /// Adds the next parameter.
    pub(crate) fn bind(mut self, value: impl Into<Bind>) -> Self {
        self.binds.push(value.into());
        self
    }

    fn holds_nul(&self) -> bool {
        let holds = |bind: &Bind| matches!(bind, Bind::Text(Some(text)) if text.contains('\0'));
        self.binds.iter().any(holds)
    }

    fn arguments<A>(binds: Vec<Bind>) -> Result<A, sqlx::Error>
    where
        A: Arguments<'static>,
        Option<String>: Encode<'static, A::Database> + Type<A::Database>,
        Option<i64>: Encode<'static, A::Database> + Type<A::Database>,
    {
        let mut arguments = A::default();
        for bind in binds {
            let added = match bind {
                Bind::Text(text) => arguments.add(text),
                Bind::Integer(number) => arguments.add(number),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(arguments)
    }

    async fn execute_sqlite(self, on: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let arguments: SqliteArguments<'static> = Self::arguments(self.binds)?;
        let done = sqlx::query_with(&self.text, arguments).execute(on).await?;
        Ok(done.rows_affected())
    }

    async fn execute_postgres(self, on: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let arguments: PgArguments = Self::arguments(self.binds)?;
        let done = sqlx::query_with(&self.text, arguments).execute(on).await?;
        Ok(done.rows_affected())
    }

    async fn rows_sqlite<'e, T: Record>(
        self,
        on: impl Executor<'e, Database = Sqlite> + 'e,
    ) -> Result<Vec<T>, sqlx::Error> {
        let arguments: SqliteArguments<'static> = Self::arguments(self.binds)?;
        sqlx::query_as_with(&self.text, arguments).fetch_all(on).await
    }

    async fn rows_postgres<'e, T: Record>(
        self,
        on: impl Executor<'e, Database = Postgres> + 'e,
    ) -> Result<Vec<T>, sqlx::Error> {
        let arguments: PgArguments = Self::arguments(self.binds)?;
        sqlx::query_as_with(&self.text, arguments).fetch_all(on).await
    }
}

/// What rows of either database become; `#[derive(FromRow)]` makes it so.
pub(crate) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Record for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// Connections that queries share. Each query is one statement, so that one that is dropped halfway
/// leaves nothing open.
#[derive(Debug, Clone)]
pub(crate) enum Readers {
    File(SqlitePool),
    Database(PgPool),
}

impl Readers {
    /// The rows that a query gives. A parameter that holds U+0000 equals nothing: no text of
    /// PostgreSQL has it, and none of ours.
    pub(crate) fn rows<T: Record + 'static>(
        &self,
        query: Statement,
    ) -> BoxFuture<'_, Result<Vec<T>, sqlx::Error>> {
        match self {
            _ if query.holds_nul() => std::future::ready(Ok(Vec::new())).boxed(),
            Self::File(pool) => query.rows_sqlite(pool).boxed(),
            Self::Database(pool) => query.rows_postgres(pool).boxed(),
        }
    }

    /// The first row, where there is one.
    pub(crate) async fn row<T: Record + 'static>(
        &self,
        query: Statement,
    ) -> Result<Option<T>, sqlx::Error> {
        Ok(self.rows(query).await?.into_iter().next())
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        match self {
            Self::File(_) => Dialect::Sqlite,
            Self::Database(_) => Dialect::Postgres,
        }
    }
}

/// A connection of one's own.
#[derive(Debug)]
pub(crate) enum Connection {
    File(SqliteConnection),
    Database(PgConnection),
}

impl Connection {
    /// Begins a transaction. The caller must be a task that nobody drops halfway.
    pub(crate) fn begin(&mut self) -> BoxFuture<'_, Result<Transaction<'_>, sqlx::Error>> {
        match self {
            Self::File(connection) => connection.begin().map_ok(Transaction::File).boxed(),
            Self::Database(connection) => connection.begin().map_ok(Transaction::Database).boxed(),
        }
    }

    /// Statements outside of a transaction.
    pub(crate) const fn session(&mut self) -> Session<'_> {
        match self {
            Self::File(connection) => Session::File(connection),
            Self::Database(connection) => Session::Database(connection),
        }
    }

    pub(crate) fn ping(&mut self) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        match self {
            Self::File(connection) => connection.ping(),
            Self::Database(connection) => connection.ping(),
        }
    }

    /// Closes it, with everything in the file and nothing beside it.
    pub(crate) fn close(self) -> BoxFuture<'static, Result<(), sqlx::Error>> {
        match self {
            Self::File(connection) => connection.close(),
            Self::Database(connection) => connection.close(),
        }
    }
}

/// A transaction; dropped, it is rolled back with the connection's next use.
pub(crate) enum Transaction<'c> {
    File(sqlx::Transaction<'c, Sqlite>),
    Database(sqlx::Transaction<'c, Postgres>),
}

impl<'c> Transaction<'c> {
    pub(crate) fn session(&mut self) -> Session<'_> {
        match self {
            Self::File(transaction) => Session::File(transaction),
            Self::Database(transaction) => Session::Database(transaction),
        }
    }

    pub(crate) fn commit(self) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        match self {
            Self::File(transaction) => transaction.commit().boxed(),
            Self::Database(transaction) => transaction.commit().boxed(),
        }
    }

    pub(crate) fn rollback(self) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        match self {
            Self::File(transaction) => transaction.rollback().boxed(),
            Self::Database(transaction) => transaction.rollback().boxed(),
        }
    }
}

/// Where statements are executed one after the other.
pub(crate) enum Session<'c> {
    File(&'c mut SqliteConnection),
    Database(&'c mut PgConnection),
}

impl Session<'_> {
    /// Executes a statement and answers how many rows it changed.
    pub(crate) fn execute(
        &mut self,
        statement: Statement,
    ) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
        match self {
            Self::File(connection) => statement.execute_sqlite(connection).boxed(),
            Self::Database(connection) => statement.execute_postgres(connection).boxed(),
        }
    }

    pub(crate) fn rows<T: Record + 'static>(
        &mut self,
        query: Statement,
    ) -> BoxFuture<'_, Result<Vec<T>, sqlx::Error>> {
        match self {
            Self::File(connection) => query.rows_sqlite(&mut **connection).boxed(),
            Self::Database(connection) => query.rows_postgres(&mut **connection).boxed(),
        }
    }

    /// The first row, where there is one.
    pub(crate) async fn row<T: Record + 'static>(
        &mut self,
        query: Statement,
    ) -> Result<Option<T>, sqlx::Error> {
        Ok(self.rows(query).await?.into_iter().next())
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        match self {
            Self::File(_) => Dialect::Sqlite,
            Self::Database(_) => Dialect::Postgres,
        }
    }
}
