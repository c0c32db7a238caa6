// Package haproxysocket speaks HAProxy's runtime API (https://docs.haproxy.org/2.6/management.html#9.3).
package haproxysocket

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/target"
)

const (
	answerLimit = 4 << 20         // bytes of one answer
	patience    = 5 * time.Second // for one line of commands
)

// Ask sends commands to the socket at path, a file or host:port. They are carried out in their order, and what they say is returned. The error wraps
// target.ErrUnreachable when nobody is there.
func Ask(ctx context.Context, path string, commands ...string) (string, error) {
	network := "unix"
	if !strings.Contains(path, "/") {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, path)
	if err != nil {
		return "", fault.Errorf(fault.Failed, "haproxy: %w: %w", target.ErrUnreachable, err).
			WithHint("is HAProxy running, with: stats socket %s level admin", path)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, strings.Join(commands, ";")+"\n"); err != nil {
		return "", fmt.Errorf("haproxy: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, answerLimit))
	if err != nil {
		return "", fmt.Errorf("haproxy: read the answer: %w", err)
	}
	text := strings.TrimSpace(string(answer))
	if strings.Contains(text, "Permission denied") {
		return "", fault.Inputf("haproxy: socket %s may not change anything", path).WithHint("give it level admin")
	}
	return text, nil
}

// Row is a line of show stat by the names of its columns.
type Row map[string]string

// Stats is show stat: a CSV with the names of the columns after #.
func Stats(ctx context.Context, path string) ([]Row, error) {
	text, err := Ask(ctx, path, "show stat")
	if err != nil {
		return nil, err
	}
	return parseStats(text)
}

// parseStats reads the answer to show stat.
func parseStats(text string) ([]Row, error) {
	text, ok := strings.CutPrefix(text, "# ")
	lines := csv.NewReader(strings.NewReader(text))
	all, err := lines.ReadAll()
	if err != nil || !ok || len(all) == 0 {
		return nil, fmt.Errorf("haproxy: unexpected answer to show stat: %.200q", text)
	}
	var rows []Row
	for _, fields := range all[1:] {
		row := Row{}
		for i, name := range all[0] {
			row[name] = fields[i]
		}
		rows = append(rows, row)
	}
	return rows, nil
}
