/* What libseccomp makes of a profile, called as runc calls it (libcontainer/seccomp).
 *
 * Reads, a line each, with numbers in C's notation:
 *
 *     default VALUE                                      SECCOMP_RET_* with its data
 *     native NAME                                        another machine's; first of all after default
 *     arch NAME                                          libseccomp's name, such as x86
 *     rule VALUE NAME [ARGUMENT OPERATOR DATUM DATUM]...  the operator is that of enum scmp_compare
 *     end
 *
 * Writes `unknown NAME` for calls that are newer than libseccomp, `newest TOKEN NUMBER` for each ABI (runc's patchbpf answers ENOSYS above it; X32 is told
 * from X86_64 by libseccomp's token) and the program, an instruction a line: code, jt, jf, k. When
 * libseccomp refuses a rule, `refused` stands for the program. */
#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MOST 16

struct instruction {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

static void fail(const char *what)
{
	fprintf(stderr, "oracle: %s\n", what);
	exit(1);
}

static char *word(void)
{
	char *found = strtok(NULL, " \n");
	return found ? found : (fail("a word is missing"), NULL);
}

/* runc asks for each condition alone when two are about one argument. */
static int add(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned count, struct scmp_arg_cmp *args)
{
	int number = seccomp_syscall_resolve_name(name), rc = 0;
	unsigned seen = 0, twice = 0;
	if (number == __NR_SCMP_ERROR)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		twice |= seen & 1u << args[i].arg;
		seen |= 1u << args[i].arg;
	}
	if (!twice)
		return seccomp_rule_add_array(filter, action, number, count, args);
	for (unsigned i = 0; i < count && !rc; i++)
		rc = seccomp_rule_add_array(filter, action, number, 1, &args[i]);
	return rc;
}

int main(void)
{
	static char line[1 << 16];
	scmp_filter_ctx filter = NULL;
	uint32_t abis[MOST], by_default = 0;
	int newest[MOST], count = 0, refused = 0;

	/* libseccomp 2.5.4 does not come to an end with some profiles. */
	setrlimit(RLIMIT_CPU, &(struct rlimit){ 1, 1 });
	while (fgets(line, sizeof line, stdin)) {
		char *verb = strtok(line, " \n");
		if (!verb)
			continue;
		if (!strcmp(verb, "default")) {
			by_default = strtoul(word(), NULL, 0);
			filter = seccomp_init(by_default);
			if (!filter)
				fail("seccomp_init");
			abis[0] = seccomp_arch_native();
			newest[0] = 0;
			count = 1;
			refused = 0;
		} else if (!strcmp(verb, "arch")) {
			uint32_t abi = seccomp_arch_resolve_name(word());
			int rc = seccomp_arch_add(filter, abi);
			if (rc == -EEXIST)
				continue;
			if (rc || count == MOST)
				fail("seccomp_arch_add");
			abis[count] = abi;
			newest[count++] = 0;
		} else if (!strcmp(verb, "native")) {
			uint32_t abi = seccomp_arch_resolve_name(word());
			int rc = abi == abis[0] ? 0 : seccomp_arch_add(filter, abi);
			if (rc || (abi != abis[0] && seccomp_arch_remove(filter, abis[0])))
				fail("seccomp_arch_remove");
			abis[0] = abi;
		} else if (!strcmp(verb, "rule")) {
			struct scmp_arg_cmp args[6];
			uint32_t action = strtoul(word(), NULL, 0);
			char *name = word(), *next;
			unsigned conditions = 0;
			while ((next = strtok(NULL, " \n")) && conditions < 6) {
				struct scmp_arg_cmp *c = &args[conditions++];
				c->arg = strtoul(next, NULL, 0);
				c->op = strtoul(word(), NULL, 0);
				c->datum_a = strtoull(word(), NULL, 0);
				c->datum_b = strtoull(word(), NULL, 0);
			}
			if (seccomp_syscall_resolve_name(name) == __NR_SCMP_ERROR)
				printf("unknown %s\n", name);
			for (int i = 0; i < count; i++) {
				int number = seccomp_syscall_resolve_name_arch(abis[i], name);
				if (number > newest[i])
					newest[i] = number;
			}
			if (action != by_default && add(filter, action, name, conditions, args))
				refused = 1;
		} else if (!strcmp(verb, "end")) {
			struct instruction i;
			FILE *file = tmpfile();
			if (!file || (!refused && seccomp_export_bpf(filter, fileno(file))))
				fail("seccomp_export_bpf");
			for (int abi = 0; abi < count; abi++)
				printf("newest %#x %d\n", abis[abi], newest[abi]);
			rewind(file);
			if (refused)
				printf("refused\n");
			while (fread(&i, sizeof i, 1, file) == 1)
				printf("%x %x %x %x\n", i.code, i.jt, i.jf, i.k);
			return 0;
		} else {
			fail("an unknown verb");
		}
	}
	fail("no end");
}
