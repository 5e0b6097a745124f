// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

func newTokenCommand(c *connection) *cobra.Command {
	var subject, scope string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "token", Short: "Print an access token of the development issuer", Args: exactly(),
		Long: `Print one access token, signed with the development issuer's key in the state directory. Whoever can read that key
may do this; there is no token endpoint. With an OIDC issuer configured these tokens are worth nothing.`,
		Example: `  plumbline token --subject alice --tenant acme --scope "devops.repositories.read devops.gitops.read"`,
		RunE: func(*cobra.Command, []string) error {
			dir, _ := c.stateDirectory()
			token, err := mintToken(dir, subject, c.tenant, scope, ttl)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.sh.stdout, token)
			return err
		},
	}
	cmd.Flags().StringVar(&subject, "subject", "", "user:NAME, agent:CLIENT, or a user's name (default: yours)")
	cmd.Flags().StringVar(&scope, "scope", "", "scopes, separated by blanks (default: all that count for the tenant)")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "lifetime")
	return cmd
}

// mintToken signs a token with the key in a state directory.
func mintToken(stateDir, subject, tenant, scope string, ttl time.Duration) (string, error) {
	key := filepath.Join(stateDir, auth.DevKeyFile)
	issuer, err := auth.ReadDevIssuer(key)
	if errors.Is(err, fs.ErrNotExist) {
		return "", desired.Errorf("mint token", desired.Ref{}, desired.NotFound,
			"there is no development issuer in %s: give the --state-dir of the daemon, and start it once with \"plumbline serve\"", stateDir)
	}
	if err != nil {
		return "", err
	}
	if tenant == "" {
		return "", usage("token needs --tenant: a token speaks for one tenant")
	}
	if subject == "" {
		subject = "user:" + currentUser()
	}
	scopes := strings.Fields(scope)
	if len(scopes) == 0 {
		scopes = allScopes()
	}
	return issuer.Mint(auth.MintRequest{Subject: subject, Tenant: tenant, Scopes: scopes, TTL: ttl}, time.Now())
}

// allScopes is every scope of the operation table and every kind's write scope. The platform's are among them: they
// count with the platform tenant only.
func allScopes() []string {
	var scopes []string
	for _, op := range auth.Operations() {
		if op.Scope != "" {
			scopes = append(scopes, op.Scope)
		}
	}
	for _, k := range desired.Kinds() {
		scopes = append(scopes, auth.KindScope(k))
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}
