/* TLS with pre-shared keys: argv[1] is a socket, argv[2] a file with the key of alice. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char buf[512] = "secret";
  char uri[4096];

  if (argc != 3)
    return 2;
  SHOW (nbd_supports_tls (h));
  MUST (nbd_set_tls (h, LIBNBD_TLS_REQUIRE));
  MUST (nbd_set_tls_psk_file (h, argv[2]));
  MUST (nbd_set_tls_username (h, "alice"));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_get_tls_negotiated (h));
  MUST (nbd_pwrite (h, buf, sizeof buf, 4096, 0));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);

  h = create ();
  snprintf (uri, sizeof uri, "nbds+unix://alice@/?socket=%s&tls-psk-file=%s", argv[1], argv[2]);
  MUST (nbd_set_uri_allow_local_file (h, true));
  MUST (nbd_connect_uri (h, uri));
  SHOW (nbd_get_tls_negotiated (h));
  memset (buf, 0, sizeof buf);
  MUST (nbd_pread (h, buf, sizeof buf, 4096, 0));
  printf ("read %s\n", buf);
  nbd_close (h);

  /* The server insists on TLS. */
  h = create ();
  SHOW (nbd_connect_unix (h, argv[1]) == -1);
  nbd_close (h);

  /* Nobody the server knows. */
  h = create ();
  MUST (nbd_set_tls (h, LIBNBD_TLS_REQUIRE));
  MUST (nbd_set_tls_psk_file (h, argv[2]));
  MUST (nbd_set_tls_username (h, "mallory"));
  SHOW (nbd_connect_unix (h, argv[1]) == -1);
  nbd_close (h);
  return 0;
}
