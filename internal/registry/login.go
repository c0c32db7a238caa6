package registry

import (
	"context"
	"errors"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

// Login is how a step makes itself known to the registry of its image. The container of an action does not see
// the logins that other steps of the job have left in the runner's home.
type Login struct {
	username string
	password secret.Value
	audience string
	plain    bool
	realm    string
}

// Inputs declares the login.
func (l *Login) Inputs() []input.Input {
	return []input.Input{
		input.String(&l.username, "registry-username", "The user of the registry; without it the logins of docker login are used."),
		input.Secret(&l.password, "registry-password", "The password or token of that user."),
		input.String(&l.audience, "registry-audience", "Take an OIDC token of the CI system for this audience as the password, on a registry that accepts it."),
		input.String(&l.realm, "registry-realm", "The host of the registry's token service, when that is of another domain: the password is sent there."),
		input.Bool(&l.plain, "registry-plain-http", "Ask the registry over http, without encryption: everybody on the way can read the password and change what is read."),
	}
}

// Client is a client that logs in to the registry of repository, and to all others as docker login has it. When nobody has
// logged in there, the host's own login for its own registry is taken.
func (l *Login) Client(h host.Host, secrets *secret.Known, repository string) (*Client, error) {
	c := New()
	c.host, _, _ = strings.Cut(repository, "/")
	c.plain, c.realm = l.plain, l.realm
	c.own = ownLogin(h, secrets, c.host)
	given := !l.password.IsZero() || l.audience != ""
	switch {
	case !given && l.username == "":
		return c, nil
	case !given:
		return nil, fault.Inputf("registry-username is given, and no password").WithHint("give registry-password, or registry-audience")
	case l.username == "":
		return nil, fault.Inputf("a password of the registry is given, and no registry-username")
	case l.audience != "" && !l.password.IsZero():
		return nil, fault.Inputf("registry-password and registry-audience are both given: want one of them")
	}
	known := &login{Login: *l}
	if l.audience != "" {
		issuer, ok := h.(host.Issuer)
		if !ok {
			return nil, fault.Inputf("registry-audience: host %s issues no OIDC tokens by itself", h.Name()).
				WithHint("on GitLab: id_tokens of the job, and registry-password with that variable")
		}
		known.issuer = issuer
		known.secrets = secrets
	}
	c.login = known
	return c, nil
}

// ownLogin is the login that the host itself has for the registry called name, or nil.
func ownLogin(h host.Host, secrets *secret.Known, name string) *login {
	r, ok := h.(host.Registrar)
	if !ok {
		return nil
	}
	username, password := r.RegistryLogin(name)
	if username == "" || password == "" {
		return nil
	}
	return &login{Login: Login{username: username, password: secrets.Learn(password)}, registry: name}
}

// login is the credentials of a Login; a token is asked for when it is needed.
type login struct {
	Login
	issuer   host.Issuer
	secrets  *secret.Known
	registry string // that it is for, when it is the host's own
}

var _ authn.ContextAuthenticator = (*login)(nil)

func (l *login) Authorization() (*authn.AuthConfig, error) {
	return nil, errors.New("a login needs a context")
}

// AuthorizationContext is the user and the password.
func (l *login) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	if l.issuer == nil {
		return &authn.AuthConfig{Username: l.username, Password: l.password.Reveal()}, nil
	}
	token, err := l.issuer.Token(ctx, l.audience)
	if err != nil {
		return nil, fault.Inputf("ask for an OIDC token for %s: %w", l.audience, err).WithHint("the job needs: permissions: id-token: write")
	}
	return &authn.AuthConfig{Username: l.username, Password: l.secrets.Learn(token).Reveal()}, nil
}

// authenticator is what is known for the registry of this name.
func (c *Client) authenticator(ctx context.Context, at authn.Resource) (authn.Authenticator, error) {
	if c.login != nil && c.host == at.RegistryStr() {
		return c.login, nil
	}
	found, err := authn.Resolve(ctx, authn.DefaultKeychain, at)
	if err == nil && found == authn.Anonymous && c.own != nil && c.own.registry == at.RegistryStr() {
		return c.own, nil
	}
	return found, err
}

// Knows says whether a login was given for the registry of repository.
func (c *Client) Knows(repository string) bool {
	name, _, _ := strings.Cut(repository, "/")
	return c.login != nil && c.host == name
}
