/* URIs: what they may ask for, what they say, and what is wrong with them. argv[1] is a socket. */

#include "check.h"

/* The words for what is wrong are the library's own. */
static void
refused_here (struct nbd_handle *h, const char *what, const char *uri)
{
  int result = nbd_connect_uri (h, uri);

  printf ("%s: %d %s\n", what, result, strerror (nbd_get_errno ()));
}

static void
refused (const char *uri)
{
  struct nbd_handle *h = create ();

  refused_here (h, uri, uri);
  nbd_close (h);
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char uri[1024], want[1024], *got;

  if (argc != 2)
    return 2;
  snprintf (uri, sizeof uri, "nbd+unix:///some%%20name?socket=%s", argv[1]);
  MUST (nbd_connect_uri (h, uri));
  SHOW (nbd_get_size (h));
  SHOW_STRING (nbd_get_export_name (h));
  got = nbd_get_uri (h);
  snprintf (want, sizeof want, "nbd+unix:///some%%20name?socket=%s", argv[1]);
  printf ("uri as expected: %d\n", got != NULL && strcmp (got, want) == 0);
  free (got);
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);

  h = create ();
  MUST (nbd_set_uri_allow_transports (h, LIBNBD_ALLOW_TRANSPORT_TCP));
  refused_here (h, "transport", uri);
  nbd_close (h);

  h = create ();
  MUST (nbd_set_uri_allow_tls (h, LIBNBD_TLS_REQUIRE));
  refused_here (h, "TLS", uri);
  nbd_close (h);

  h = create ();
  SHOW_STRING (nbd_get_uri (h));
  nbd_close (h);

  refused ("");
  refused ("http://localhost/");
  refused ("localhost:10809");
  refused ("nbd+unix:///");
  refused ("nbd://localhost/?socket=/tmp/x");
  refused ("nbds://localhost/?tls-psk-file=/etc/passwd");
  refused ("nbds://localhost/?tls-certificates=/etc");
  return 0;
}
