// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

// addressesFile is where a daemon writes the addresses it listens on, below its state directory.
const addressesFile = "addresses.json"

// Addresses is the content of DIR/addresses.json.
type Addresses struct {
	HTTP  string `json:"http"`
	GRPC  string `json:"grpc"`
	Admin string `json:"admin"`
}

// connection is where the daemon is and who is asking, from the flags and variables that every client verb shares.
type connection struct {
	sh         *shell
	server     string
	grpcServer string
	tokenFile  string
	stateDir   string
	tenant     string
	verbose    bool
}

// newConnection binds the shared flags to the root command.
func newConnection(root *cobra.Command, sh *shell) *connection {
	c := &connection{sh: sh}
	flags := root.PersistentFlags()
	flags.StringVar(&c.server, "server", "", "URL of the REST listener (or PLUMBLINE_SERVER)")
	flags.StringVar(&c.grpcServer, "grpc-server", "", "address of the gRPC listener (or PLUMBLINE_GRPC_SERVER)")
	flags.StringVar(&c.tokenFile, "token-file", "", "file with an access token, - for stdin (or PLUMBLINE_TOKEN_FILE)")
	flags.StringVar(&c.stateDir, "state-dir", "", "state directory of a daemon on this machine (or PLUMBLINE_STATE_DIR)")
	flags.StringVarP(&c.tenant, "tenant", "n", "", "tenant (or PLUMBLINE_TENANT)")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "say more on stderr")
	before := func(*cobra.Command, []string) {
		c.server = orEnv(sh, c.server, "PLUMBLINE_SERVER")
		c.grpcServer = orEnv(sh, c.grpcServer, "PLUMBLINE_GRPC_SERVER")
		c.tokenFile = orEnv(sh, c.tokenFile, "PLUMBLINE_TOKEN_FILE")
		c.tenant = orEnv(sh, c.tenant, "PLUMBLINE_TENANT")
	}
	root.PersistentPreRun = before
	return c
}

func orEnv(sh *shell, value, key string) string {
	if value != "" {
		return value
	}
	return sh.getenv(key)
}

// stateDirectory is the daemon's state directory on this machine, and whether somebody named it.
func (c *connection) stateDirectory() (dir string, named bool) {
	if dir := orEnv(c.sh, c.stateDir, "PLUMBLINE_STATE_DIR"); dir != "" {
		return dir, true
	}
	dir, _ = defaultStateDir(environment(c.sh.environ))
	return dir, false
}

// addresses finds the daemon: what was named, else what it wrote into its state directory.
func (c *connection) addresses() (httpURL, grpcAddr string, err error) {
	httpURL, grpcAddr = c.server, c.grpcServer
	if httpURL == "" || grpcAddr == "" {
		a, err := c.readAddresses()
		switch {
		case err == nil && c.server == "":
			httpURL = a.HTTP
			grpcAddr = firstOf(grpcAddr, a.GRPC)
		case err != nil && c.server == "":
			return "", "", err
		case grpcAddr == "":
			if grpcAddr, err = neighbour(c.server); err != nil {
				return "", "", err
			}
		}
	}
	return withScheme(httpURL), grpcAddr, nil
}

func (c *connection) readAddresses() (Addresses, error) {
	dir, _ := c.stateDirectory()
	var a Addresses
	b, err := os.ReadFile(filepath.Join(dir, addressesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return a, desired.Errorf("find daemon", desired.Ref{}, desired.Transient,
			"no daemon has written its addresses into %s: start \"plumbline serve\", or name one with --server or --state-dir", dir)
	}
	if err != nil {
		return a, desired.E("find daemon", desired.Ref{}, desired.Internal, err)
	}
	if json.Unmarshal(b, &a) != nil || a.HTTP == "" || a.GRPC == "" {
		return a, desired.Errorf("find daemon", desired.Ref{}, desired.Invalid,
			"%s is damaged: start \"plumbline serve\" again, which writes it anew, or name the daemon with --server", filepath.Join(dir, addressesFile))
	}
	return a, nil
}

// neighbour is the default gRPC port beside a named REST listener.
func neighbour(server string) (string, error) {
	u, err := url.Parse(withScheme(server))
	if err != nil || u.Hostname() == "" {
		return "", usage("--server must be a URL such as https://plumbline.example.org or 127.0.0.1:8080")
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), "9090"), nil
}

// withScheme completes host:port: plain HTTP to this machine, TLS to any other.
func withScheme(addr string) string {
	if strings.Contains(addr, "://") {
		return strings.TrimSuffix(addr, "/")
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if loopback(host) {
		return "http://" + addr
	}
	return "https://" + addr
}

// token is the caller's access token: from a file, or signed here for a daemon of this machine.
func (c *connection) token() (string, error) {
	switch {
	case c.tokenFile == "-":
		return readToken(c.sh.stdin)
	case c.tokenFile != "":
		f, err := os.Open(c.tokenFile)
		if err != nil {
			return "", usage("--token-file: %w", err)
		}
		defer f.Close()
		return readToken(f)
	}
	dir, named := c.stateDirectory()
	if _, err := os.Stat(filepath.Join(dir, auth.DevKeyFile)); err != nil || (c.server != "" && !named) {
		return "", &exitError{77, errors.New("no access token: give --token-file or PLUMBLINE_TOKEN_FILE, or the --state-dir of a daemon on this machine with the development issuer")}
	}
	if c.tenant == "" {
		return "", usage("no tenant: give -n TENANT or PLUMBLINE_TENANT")
	}
	return mintToken(dir, "", c.tenant, "", 0)
}

func readToken(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return "", usage("read token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || strings.ContainsAny(t, " \n\r\t") {
		return "", usage("the token file must hold one access token and nothing else")
	}
	return t, nil
}

// currentUser is the name under which this machine knows the caller.
func currentUser() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "unknown-user"
}

// dial opens the gRPC connection. The token goes out over TLS, but in plain text to this machine, or
// where the caller wrote http://.
func (c *connection) dial() (*grpc.ClientConn, error) {
	_, addr, err := c.addresses()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	scheme, target, ok := strings.Cut(withScheme(addr), "://")
	if !ok || target == "" {
		return nil, usage("--grpc-server must be host:port")
	}
	transport := insecure.NewCredentials()
	if scheme == "https" {
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	return grpc.NewClient(target, grpc.WithTransportCredentials(transport), grpc.WithPerRPCCredentials(bearer(token)))
}

// bearer puts the token on each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false because dial decides, with the address at hand.
func (b bearer) RequireTransportSecurity() bool { return false }

func firstOf(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}
