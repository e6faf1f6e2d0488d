package resettest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

func generalSentences() []storeSentence {
	const bytes = "Hashes, ids, user ids (at most 255 bytes) and addresses compare as bytes, whatever the collation of the database."
	return []storeSentence{
		{"Time/arguments", "A Store knows the time only from its arguments.", (*storeCheck).timeIsAnArgument},
		{"Time/zones", "A time is an instant, in whatever zone it is given.", (*storeCheck).zones},
		{"Time/precision", "Times have millisecond precision: a Store may truncate anything finer.", (*storeCheck).precision},
		{"Time/jumps back", "A clock that jumps back revives nothing that was redeemed, revoked or purged.", (*storeCheck).jumpsBack},
		{"Bytes/users", bytes, (*storeCheck).userIDsAreBytes},
		{"Bytes/user of a mail", bytes, (*storeCheck).userIDsOfMailsAreBytes},
		{"Bytes/addresses", bytes, (*storeCheck).addressesAreBytes},
		{"Bytes/hashes and ids", bytes, (*storeCheck).hashesAreBytes},
		{"Bytes/text", "Every string is stored unchanged.", (*storeCheck).textIsKept},
	}
}

func (c *storeCheck) timeIsAnArgument() {
	for i, now := range []time.Time{
		time.Date(1970, 1, 1, 2, 0, 0, 0, time.UTC),
		time.Date(2001, 2, 3, 4, 5, 6, 7e6, time.UTC),
		time.Date(2222, 2, 2, 2, 2, 2, 222e6, time.UTC),
	} {
		user := fmt.Sprint("user ", i)
		a := c.activation(user)
		a.Expires = now.Add(lifetime)
		m := c.mailFor(a)
		m.Due = now
		c.issue(now, a, 1, m)
		c.wantLive(now, a)
		c.wantDead(now.Add(lifetime), a)
		err := c.tryIssue(now.Add(ms), c.activation(user), 1, nil)
		c.wantLimit(err, lifetime-ms)

		leased := c.leaseOne(now, now.Add(time.Minute))
		if !leased.Due.Equal(now.Add(time.Minute)) || !leased.Expires.Equal(a.Expires) {
			c.Errorf("leased at %v, until %v, a mail that expires at %v", now, leased.Due, leased.Expires)
		}
		c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease, Retry: now.Add(2 * time.Minute)})
		c.wantMails(now.Add(2*time.Minute - ms))
		c.wantMails(now.Add(2*time.Minute), *m)

		notification := c.notification(user)
		notification.Due, notification.Expires = now, now.Add(notificationLifetime)
		c.redeem(now.Add(lifetime-ms), a, notification)
		c.wantMails(now.Add(lifetime), notification)
		c.purgeAll(now.Add(notificationLifetime))
		c.wantMails(now.Add(lifetime + time.Minute))
	}
}

func (c *storeCheck) zones() {
	east, west := time.FixedZone("east", 14*3600), time.FixedZone("west", -12*3600)
	a := c.activation("a")
	a.Expires = a.Expires.In(east)
	m := c.mailFor(a)
	m.Due = m.Due.In(west)
	c.issue(start.In(west), a, 1, m)
	c.wantLive(at(lifetime-ms).In(east), a)
	c.wantDead(at(lifetime).In(west), a)
	if got := c.leaseOne(start.In(east), at(time.Minute).In(west)); !got.Due.Equal(at(time.Minute)) {
		c.Errorf("leased until %v, want %v", got.Due, at(time.Minute))
	}
	c.wantMails(at(time.Minute - ms).In(east))
	c.wantMails(at(time.Minute).In(east), *m)
}

func (c *storeCheck) precision() {
	const part = 900 * time.Microsecond
	a := c.activation("a")
	a.Expires = at(lifetime + part)
	m := c.mailFor(a)
	m.Due = at(part)
	c.issue(at(part), a, 1, m)
	got, err := c.store.Find(c.Context(), at(part), a.Hash)
	if err != nil {
		c.Fatalf("Find: %v", err)
	}
	if lost := a.Expires.Sub(got.Expires); lost != 0 && lost != part {
		c.Errorf("Find returned an activation that expires %v earlier than it was given", lost)
	}
	if !c.exists(at(lifetime-ms), a) || c.exists(at(lifetime+ms), a) {
		c.Errorf("not live up to its last millisecond")
	}
	leased := c.leaseOne(at(part), at(time.Minute+part))
	if lost := at(time.Minute + part).Sub(leased.Due); lost != 0 && lost != part {
		c.Errorf("Lease returned a mail that is due %v earlier than asked for", lost)
	}
	c.leaseOne(at(time.Minute+part), at(time.Hour))
}

// exists is isLive without a comparison of the record.
func (c *storeCheck) exists(now time.Time, a reset.Activation) bool {
	_, err := c.store.Find(c.Context(), now, a.Hash)
	return err == nil
}

func (c *storeCheck) jumpsBack() {
	used, usedMail := c.issuedWithMail("used")
	revoked, _ := c.issuedWithMail("revoked")
	settled := c.publicRequest("settled@example.com")
	purged := c.activation("purged")
	purged.Expires = at(10 * time.Minute)
	c.issue(start, purged, 1, c.mailFor(purged))
	c.enqueue(settled)

	for _, m := range c.leaseAll(start, at(time.Minute)) {
		if m.ID == settled.ID {
			c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
		}
	}
	c.purgeAll(at(10 * time.Minute))
	notification := c.notification("used")
	c.redeem(at(20*time.Minute), used, notification)
	c.revoke("revoked")

	for _, back := range []time.Duration{5 * time.Minute, 0, -1000 * time.Hour} {
		c.wantDead(at(back), used, revoked, purged)
		for _, a := range []reset.Activation{used, revoked, purged} {
			c.wantRefused(at(back), a)
		}
	}
	c.wantMails(at(5*time.Minute), notification)
	for _, user := range []string{"used", "revoked", "purged"} {
		c.issue(at(-time.Hour), c.activation(user), 1, nil) // the dead do not count for the cap
	}
	c.issue(start, c.activationFor(usedMail, "used"), 2, &usedMail) // the id is free again
}

// lookalikes returns strings that some collation or encoding treats as equal.
// None is empty.
func lookalikes() []string {
	long := strings.Repeat("x", 254)
	return []string{
		"a", "A", "á", "a\u0301", "à", "ａ", "ª", "а", // the last one is Cyrillic
		"a ", " a", "a  ", "a\x00", "a\x00\x00", "\x00a", "a\t", "a\n", "a\u00a0", "a\u200b",
		"a\xff", "a\xfe", "a\ufffd", "\xed\xa0\x80", "\xc0\xaf",
		"i", "I", "ı", "İ", "ß", "ss", "ſs", "ﬀ", "ff", "K", "\u212a",
		`a\`, `a\\`, `\a`, "a'", "a''", `a"`, "a`", "a--", "a-- ", "a;", "a?", "a%", "%", "_", "a_", "a$1", "a:a", "{}", "a\x1a", "a\x1b",
		"0", "00", "0x61", "1e0", "1", "null", "NULL", "true", "😀", "😁",
		long + "x", long + "X", long + "y", long,
	}
}

func (c *storeCheck) userIDsAreBytes() {
	users := lookalikes()
	kept := make([]reset.Activation, len(users))
	used := make([]reset.Activation, len(users))
	for i, user := range users {
		used[i], kept[i] = c.activation(user), c.activation(user)
		c.issue(start, used[i], 1, nil) // requests of other users do not count
	}
	for i, user := range users {
		c.wantLive(start, used[i]) // not ended with another user's
		if i%2 == 0 {
			c.redeem(start, used[i], c.notification(user))
		} else {
			c.revoke(user)
		}
		c.wantDead(start, used[i])
		c.issue(start, kept[i], 1, nil)
	}
	c.wantLive(start, kept...)
}

func (c *storeCheck) userIDsOfMailsAreBytes() {
	users := lookalikes()
	var kept []reset.Mail
	for i, user := range users {
		c.enqueue(c.publicRequest("a@example.com"))
		leased := c.leaseOne(start, at(time.Minute))
		leased.Due = at(time.Minute)
		c.issue(start, c.activationFor(leased, user), 1, &leased)
		for _, other := range users[max(0, i-1):i] {
			err := c.tryIssue(start, c.activationFor(leased, other), 100, &leased)
			c.wantIs("Issue of the mail of another user", err, reset.ErrGone)
		}
		if i%2 == 0 {
			leased.UserID = user
			kept = append(kept, leased)
		}
	}
	for i, user := range users {
		if i%2 == 1 {
			c.revoke(user)
		}
	}
	c.wantMails(at(time.Minute), kept...)
}

func (c *storeCheck) addressesAreBytes() {
	var want []reset.Mail
	for _, s := range lookalikes() {
		if len(s) > 200 {
			s = s[len(s)-200:]
		}
		m := c.publicRequest(s + "@example.com")
		want = append(want, m)
		c.enqueue(m)
		a := c.activation("user")
		a.Email = m.Email
		c.issue(start, a, 100, nil)
		c.wantLive(start, a)
	}
	c.wantMails(start, want...)
}

func (c *storeCheck) hashesAreBytes() {
	patterns := []func(i int) byte{
		func(int) byte { return 0 },
		func(int) byte { return ' ' },
		func(int) byte { return 'a' },
		func(int) byte { return 'A' },
		func(int) byte { return 0xff },
		func(i int) byte { return byte(' ' * (i % 2)) },   // ends in a space
		func(i int) byte { return byte('a' * (1 - i%2)) }, // ends in a zero
		func(i int) byte { return `\'"?%-`[i%6] },
	}
	var activations []reset.Activation
	var mails []reset.Mail
	for i, pattern := range patterns {
		for last := range 3 {
			a := c.activation("user")
			for j := range a.Hash {
				a.Hash[j] = pattern(j)
			}
			for j := range a.Request {
				a.Request[j] = pattern(j)
			}
			// These three differ in the last byte only.
			a.Hash[31], a.Request[15] = a.Hash[31]^byte(last), a.Request[15]^byte(last+4)
			if i == 3 { // differs from the pattern of 'a' by case
				a.Hash[0] = 'A'
			}
			m := c.mailFor(a)
			c.issue(start, a, 100, m)
			activations, mails = append(activations, a), append(mails, *m)
		}
	}
	c.wantLive(start, activations...)
	err := c.tryIssue(start, c.activation("user"), len(activations), nil)
	c.wantLimit(err, lifetime)
	leased := c.leaseAll(start, at(time.Minute))
	for _, m := range leased[:len(leased)/2] {
		c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
	}
	if got := len(c.leaseAll(at(late), at(lifetime))); got != len(mails)-len(leased)/2 {
		c.Errorf("%d mails are left of %d, %d of which were settled", got, len(mails), len(leased)/2)
	}
}

func (c *storeCheck) textIsKept() {
	var want []reset.Mail
	a := c.issued("user")
	for _, s := range append(lookalikes(), "", strings.Repeat("Ω", 500)) {
		m := c.notification("user")
		m.Name = s
		if len(s) <= 35 {
			m.Locale = s
		}
		c.enqueue(m)
		want = append(want, m)
	}
	notification := want[0]
	notification.ID, notification.Name = c.id(), "\x00\xff '\\\"--?%\x1a"
	err := c.store.Redeem(c.Context(), start, a, notification, func(context.Context) error { return nil })
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	c.wantMails(start, append(want, notification)...)
}
