# Print functions longer than MAX lines and files longer than FILEMAX.  Relies
# on the layout: a function's name and its closing brace are in column one.
FNR == 1 { end_file(); file = FILENAME; name = "" }
{ lines = FNR }
/^[a-zA-Z_][a-zA-Z0-9_]*\(/ { name = $0; sub(/\(.*/, "", name); start = FNR }
/^}/ && name != "" {
	n = FNR - start + 1
	if (n > MAX)
		printf "%s:%d: function %s has %d lines, not at most %d\n", FILENAME, start, name, n, MAX
	name = ""
}
END { end_file() }
function end_file()
{
	if (file != "" && lines > FILEMAX)
		printf "%s:%d: the file has %d lines, not at most %d\n", file, FILEMAX + 1, lines, FILEMAX
}
