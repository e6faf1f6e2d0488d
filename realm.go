package reset

import (
	"context"
	"errors"
	"fmt"
)

// A RealmStore is a Store that keeps the records of several applications or
// brands apart, as all stores of this module do. Config.Realm needs one.
type RealmStore interface {
	Store

	// Realm returns a view of the store for one realm. Every record belongs to
	// the realm of the view that added it. No method of a view returns, counts,
	// changes or leases a record of another realm, except that Purge removes
	// the expired records of all realms. Views with the same name share their
	// records; the store itself is the view with the name "". Names compare as
	// bytes and have at most 64 of them. A view is a RealmStore, and implements
	// what else the store implements. It is not closed on its own.
	Realm(name string) Store

	// SetBaseURL records the BaseURL of a Service that uses the realm, and
	// returns the one recorded before, or "" if there is none.
	SetBaseURL(ctx context.Context, baseURL string) (last string, err error)
}

const maxRealm = 64 // bytes

// realmOf returns a store's view for one realm.
func realmOf(store Store, name string) (Store, error) {
	if name == "" {
		return store, nil
	}
	if len(name) > maxRealm {
		return nil, fmt.Errorf("has %d bytes, more than %d", len(name), maxRealm)
	}
	if s, ok := store.(RealmStore); ok {
		if view := s.Realm(name); view != nil {
			return view, nil
		}
	}
	return nil, errors.New("needs a Store that is a RealmStore")
}
