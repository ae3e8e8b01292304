/*
 * CGI: the request is in the environment and on stdin, the head and the body of the response go to stdout.
 *
 * `GET /` says hello, `POST /echo` sends back what it gets, as it comes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *variable(const char *name)
{
	const char *value = getenv(name);
	return value ? value : "";
}

static void head(const char *status)
{
	printf("Status: %s\r\nContent-Type: text/plain\r\n\r\n", status);
	fflush(stdout);
}

static int send_all(const char *bytes, size_t left)
{
	while (left > 0) {
		ssize_t written = write(STDOUT_FILENO, bytes, left);
		if (written < 0)
			return -1;
		bytes += written;
		left -= (size_t)written;
	}
	return 0;
}

/* `read` rather than `fread`: it returns what has come so far. */
static int echo(void)
{
	char buffer[4096];
	ssize_t got;
	while ((got = read(STDIN_FILENO, buffer, sizeof buffer)) > 0) {
		if (send_all(buffer, (size_t)got) < 0)
			return EXIT_FAILURE;
	}
	return got < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(void)
{
	const char *method = variable("REQUEST_METHOD");
	const char *path = variable("PATH_INFO");

	if (strcmp(method, "POST") == 0 && strcmp(path, "/echo") == 0) {
		head("200 OK");
		return echo();
	}
	if (strcmp(method, "GET") == 0 && (path[0] == '\0' || strcmp(path, "/") == 0)) {
		head("200 OK");
		fputs("Hello World!", stdout);
		return EXIT_SUCCESS;
	}
	head("404 Not Found");
	fputs("not found\n", stdout);
	return EXIT_SUCCESS;
}
