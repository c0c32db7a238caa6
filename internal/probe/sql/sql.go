// Package sql is the probe that asks a database for one number.
package sql

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/secret"
)

// Kind is the sql probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "sql",
		Help: "Passes when a query to PostgreSQL or MySQL gives one number within bounds, for example the orders of the last minute. " +
			"A database that does not answer is no data. The query runs in a read-only transaction.",
		Every: 5 * time.Second,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			p := &question{low: math.Inf(-1), high: math.Inf(1)}
			return []input.Input{
				input.Secret(&p.url, "url", "postgres://user:password@host:5432/database or mysql://user:password@host:3306/database.").Must(),
				input.String(&p.query, "query", "The query: one row with one number.").Must(),
				input.Bind(&p.low, "min", "The least number that is healthy.", number),
				input.Bind(&p.high, "max", "The largest number that is healthy.", number),
			}, func() (probe.Probe, error) { return p.open() }
		},
	}
}

func number(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return f, nil
}

type question struct {
	url       secret.Value
	query     string
	low, high float64
	connect   func() *sql.DB
}

func (p *question) open() (probe.Probe, error) {
	at, err := url.Parse(p.url.Reveal())
	if err != nil || at.Host == "" {
		return nil, fault.Inputf("url: want for example postgres://user:password@host:5432/database") // and nothing of what it is
	}
	if math.IsInf(p.low, -1) && math.IsInf(p.high, 1) {
		return nil, fault.Inputf("min or max is missing: without one, every number is healthy")
	}
	switch at.Scheme {
	case "postgres", "postgresql":
		config, err := pgx.ParseConfig(p.url.Reveal())
		if err != nil {
			return nil, fault.Inputf("url: it is no connection string of PostgreSQL")
		}
		p.connect = func() *sql.DB { return stdlib.OpenDB(*config) }
	case "mysql", "mariadb":
		config := mysql.NewConfig()
		config.User = at.User.Username()
		config.Passwd, _ = at.User.Password()
		config.Net, config.Addr, config.DBName = "tcp", at.Host, strings.TrimPrefix(at.Path, "/")
		if at.Port() == "" {
			config.Addr += ":3306"
		}
		if at.Query().Get("tls") != "" {
			config.TLSConfig = at.Query().Get("tls")
		}
		connector, err := mysql.NewConnector(config)
		if err != nil {
			return nil, fault.Inputf("url: it is no connection string of MySQL")
		}
		p.connect = func() *sql.DB { return sql.OpenDB(connector) }
	default:
		return nil, fault.Inputf("url: want postgres:// or mysql://")
	}
	return p, nil
}

// Check asks once. The release's address plays no part: its customers' orders do.
func (p *question) Check(ctx context.Context, _ string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		value, err := p.ask(ctx)
		switch {
		case err != nil:
			return probe.NoData, probe.Line(err.Error())
		case !value.Valid:
			return probe.NoData, "the query gives NULL"
		case value.Float64 < p.low:
			return probe.Fail, fmt.Sprintf("%g is below %g", value.Float64, p.low)
		case value.Float64 > p.high:
			return probe.Fail, fmt.Sprintf("%g is above %g", value.Float64, p.high)
		}
		return probe.Pass, ""
	})
}

func (p *question) ask(ctx context.Context) (sql.NullFloat64, error) {
	var value sql.NullFloat64
	db := p.connect()
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return value, err
	}
	defer func() { _ = tx.Rollback() }() // nothing was changed
	rows, err := tx.QueryContext(ctx, p.query)
	if err != nil {
		return value, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return value, err
	}
	if len(columns) != 1 {
		return value, fmt.Errorf("the query gives %d columns instead of one", len(columns))
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return value, err
		}
		return value, fmt.Errorf("the query gives no row")
	}
	if err := rows.Scan(&value); err != nil {
		return value, err
	}
	if rows.Next() {
		return value, fmt.Errorf("the query gives several rows")
	}
	return value, rows.Err()
}
