"""A request enters: words, media and wishes. A result leaves. Only this folder knows every stage of the flow."""
